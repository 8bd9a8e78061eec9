"""The whole catalogue on the duplicates page: all groups, similar listings, and undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import streamlit as st

from app.bootstrap import App
from app.duplicates.groups import DuplicateGroup
from app.duplicates.report import CatalogueFolds, catalogue_folds
from app.duplicates.verdicts import Decision, decide_all, undo
from app.errors import LookalikeError
from app.ui.components.fold_lists import (
    draw_group,
    draw_similar,
    drawn_skus,
    open_pairs,
    skus_of_pairs,
)
from app.ui.engine_texts import engine_text
from app.ui.formatting import escape_markdown, format_number
from app.ui.sign_in import require_name
from app.ui.translation import _

FOLDS = "duplicates_folds"
PART = "duplicates_part"
UNDO = "duplicates_undo"
MESSAGE = "review_message"
"""Session keys: the groups of a part of the catalogue, the number of that part, decisions that can
be undone (the last one last), and the outcome of the last decision."""

PART_SIZE = 10_000
"""Products that are compared at once, in the order of their words."""

PAGE_SIZE = 10
"""Groups, or pairs of similar listings, on one page."""

MAX_UNDO = 20
"""Decisions that are kept to be undone; a bulk decision is one."""

Shown = TypeVar("Shown")


def show_groups(app: App) -> None:
    """Draw all groups of the catalogue, a page at a time, with buttons to correct and accept."""
    folds = _folds(app)
    groups = folds.groups
    st.caption(_("The groups of the catalogue. Verdicts take effect at once."))
    if not groups:
        text = _("No two products of this part of the catalogue are duplicates.")
        if _is_whole(folds):
            text = _("No two products of the catalogue are duplicates.")
        st.info(text)
    name = _name(app) if groups else None
    page = _page(groups, "groups")
    undecided = [pair for group in page for pair in open_pairs(group)]
    if name is not None and undecided:
        st.button(
            _("Accept all on this page ({count})").format(count=len(page)),
            type="primary", key="accept all",
            on_click=_decide, args=(app, undecided, True, name),
            help=_("Record that the products of these groups are the same"),
        )  # fmt: skip
    thumbnails = app.catalog.thumbnails([sku for group in page for sku in drawn_skus(group)])
    not_the_same = _decider(app, False, name)
    accept = None
    if name is not None:
        accept = partial(_accept, app, name)
    for group in page:
        draw_group(group, thumbnails, not_the_same, accept)
    _draw_refresh()


def show_similar(app: App) -> None:
    """Draw products with the same words that are not the same product, the nearest first."""
    folds = _folds(app)
    pairs = sorted(
        folds.similar,
        key=lambda pair: (3.0 if pair.distance is None else pair.distance, pair.product.sku),
    )
    st.caption(_("Products with the same words that are not the same product, the nearest first."))
    if not pairs:
        text = _("No two products of this part of the catalogue only read alike.")
        if _is_whole(folds):
            text = _("No two products of the catalogue only read alike.")
        st.info(text)
    name = _name(app) if pairs else None
    page = _page(pairs, "similar")
    thumbnails = app.catalog.thumbnails(skus_of_pairs(page))
    the_same = _decider(app, True, name)
    for pair in page:
        draw_similar(pair, thumbnails, the_same)
    _draw_refresh()


def draw_undo(app: App) -> None:
    """Draw the button that takes the last decision of this session back, if there is one."""
    stack: list[tuple[str, tuple[Decision, ...]]] = st.session_state.get(UNDO, [])
    if stack and not app.settings.page_read_only:
        st.button(
            _("Undo: {summary}").format(summary=escape_markdown(stack[-1][0])),
            key=f"undo {len(stack)}", type="tertiary", icon=":material/undo:",
            on_click=_undo, args=(app,),
        )  # fmt: skip


def remember(summary: str, decisions: tuple[Decision, ...]) -> None:
    """Note decisions that can be undone together, and read the groups again."""
    stack = [*st.session_state.get(UNDO, []), (summary, decisions)]
    st.session_state[UNDO] = stack[-MAX_UNDO:]
    forget()


def forget() -> None:
    """Read the groups of the catalogue again at the next run."""
    st.session_state.pop(FOLDS, None)


def _folds(app: App) -> CatalogueFolds:
    """The groups of the chosen part of the catalogue; draws the choice if it has several parts."""
    part = st.session_state.get(PART, 1)
    if FOLDS not in st.session_state:
        with (
            st.spinner(_("Comparing the products of the catalogue …")),
            app.admission.admitted(),
        ):
            st.session_state[FOLDS] = catalogue_folds(
                app.engine, app.settings.typo_similarity,
                first=(part - 1) * PART_SIZE, count=PART_SIZE,
            )  # fmt: skip
    folds: CatalogueFolds = st.session_state[FOLDS]
    parts = max(1, -(-folds.products // PART_SIZE))
    if parts > 1 or part > 1:
        first = (part - 1) * PART_SIZE
        text = _(
            "The catalogue has {products} products. Compared are number {first} to {last} in the "
            "order of brand, category and words; the others are in other parts. "
            "`lookalike duplicates pairs` compares all of them."
        )
        st.info(
            text.format(
                products=format_number(folds.products), first=format_number(first + 1),
                last=format_number(first + folds.compared),
            )
        )  # fmt: skip
        st.session_state[PART] = part = min(part, parts)
        st.number_input(
            _("Part of the catalogue, of {count}").format(count=parts), 1, parts, key=PART,
            width=240, on_change=forget,
        )  # fmt: skip
    return folds


def _is_whole(folds: CatalogueFolds) -> bool:
    return folds.compared == folds.products


def _name(app: App) -> str | None:
    """The name that verdicts are recorded with; None if none may be taken."""
    if app.settings.page_read_only:
        st.info(_("This page is read-only: verdicts are shown, and none is taken."))
        return None
    return require_name()


def _page(listed: Sequence[Shown], key: str) -> Sequence[Shown]:
    """The items of the chosen page; draws the choice if there are several pages."""
    pages = max(1, -(-len(listed) // PAGE_SIZE))
    number = 1
    if pages > 1:
        chosen = f"{key}_page"
        st.session_state[chosen] = min(st.session_state.get(chosen, 1), pages)
        label = _("Page (of {count})").format(count=pages)
        number = int(st.number_input(label, 1, pages, key=chosen, width=140))
    return listed[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]


def _decider(app: App, same: bool, name: str | None) -> Callable[[str, str], None] | None:
    """Records a verdict on two skus; None without a name to record it with."""
    if name is None:
        return None
    return lambda sku_a, sku_b: _decide(app, [(sku_a, sku_b)], same, name)


def _decide(app: App, pairs: Sequence[tuple[str, str]], same: bool, name: str) -> None:
    """Record verdicts; a callback, so that the page is drawn with them."""
    try:
        bulk = decide_all(app.engine, pairs, same, name)
    except LookalikeError as exc:
        st.session_state[MESSAGE] = ("refused", engine_text(str(exc)))
        return
    count = len(bulk.recorded)
    summary = _("{count} pairs are different products").format(count=format_number(count))
    if same:
        summary = _("{count} pairs are the same product").format(count=format_number(count))
    if count == 1:
        verdict = bulk.recorded[0].verdict
        summary = verdict_summary(verdict.sku_a, verdict.sku_b, same)
    if bulk.recorded:
        remember(summary, bulk.recorded)
    refused = " ".join(map(engine_text, bulk.refused))
    st.session_state[MESSAGE] = ("refused", refused) if refused else ("done", f"{summary}.")


def verdict_summary(sku_a: str, sku_b: str, same: bool) -> str:
    """What a verdict says."""
    text = _("{first} and {second} are different products")
    if same:
        text = _("{first} and {second} are the same product")
    return text.format(first=sku_a, second=sku_b)


def _accept(app: App, name: str, group: DuplicateGroup) -> None:
    _decide(app, open_pairs(group), True, name)


def _undo(app: App) -> None:
    stack = st.session_state.get(UNDO, [])
    if not stack:
        return
    summary, decisions = stack[-1]
    try:
        undo(app.engine, decisions)
    except LookalikeError as exc:
        st.session_state[MESSAGE] = ("refused", engine_text(str(exc)))
    else:
        st.session_state[MESSAGE] = ("done", _("Undone: {summary}.").format(summary=summary))
    st.session_state[UNDO] = stack[:-1]
    forget()


def _draw_refresh() -> None:
    st.button(_("Look again"), type="tertiary", icon=":material/refresh:", on_click=forget)
