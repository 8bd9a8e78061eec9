"""The shortfall of a page that several statements filled: what `shortfall` counts it from."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.db.queries import products
from app.search.filters import unknown_attribute
from app.search.page_hits import PageRequest
from app.search.paging import Page
from app.search.shortfall import ShortPage, count_causes, gave_up_after, given_up
from app.types import Query, Shortfall


def of_page(request: PageRequest, result_page: Page) -> Shortfall | None:
    """Why the page is short, None if it is full."""
    if len(result_page.deduplicated.kept) >= request.query.k:
        return None
    if result_page.stopped and request.catalogue_words is None:
        return of_given_up(request.query, result_page)
    words = None
    if request.catalogue_words is not None and not request.by_vector:
        words = request.catalogue_words[0]
    return count_causes(
        ShortPage(
            request.in_snapshot, result_page.deduplicated, words, result_page.earlier,
            result_page.cut, result_page.stopped, result_page.shared,
        )
    )  # fmt: skip


def of_given_up(query: Query, result_page: Page) -> Shortfall:
    """Why a page that was given up is short, without counting."""
    return given_up(
        result_page.deduplicated, result_page.stopped, len(result_page.earlier),
        filtered=bool(query.filters),
    )  # fmt: skip


def hints_of_page(connection: Connection, query: Query, result_page: Page) -> tuple[str, ...]:
    """Further reasons why a page is short."""
    unknown: Sequence[str] = ()
    if not result_page.deduplicated.kept and query.filters.attributes:
        unknown = products.unknown_attributes(connection, list(query.filters.attributes))
    stopped = (gave_up_after(result_page.stopped, query),) if result_page.stopped else ()
    return (*map(unknown_attribute, unknown), *stopped)
