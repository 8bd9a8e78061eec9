"""Labelled queries from real use: what people searched for, and what they clicked or bought."""

from __future__ import annotations

from collections.abc import Sequence

from app.db.queries.search_events import LabelledRow
from app.errors import BadInput, BadSource
from app.evaluation.labelled_queries import LabelledQuery
from app.search.filters import parse
from app.types import Filters


def labelled(rows: Sequence[LabelledRow], filters: Filters) -> list[LabelledQuery]:
    """A labelled query for each search and product chosen in it, in the order of the rows.

    `filters` are those of the run; where it has none, each query has those it was searched with.
    A photo is searched by its preview, because the photo itself is not kept. Raises BadSource if
    there are no rows.
    """
    if not rows:
        raise BadSource(
            "No search can be repeated: nothing was clicked yet, or no key records queries. Create "
            "one with `lookalike key create --record queries`, and post events to /v1/events."
        )
    return [
        LabelledQuery(
            number, _name(row), row.preview, row.expected_sku, row.words, row.sku,
            None if filters else _filters(row),
        )
        for number, row in enumerate(rows, start=1)
    ]  # fmt: skip


def _name(row: LabelledRow) -> str:
    """What was searched for; it names the query in reports and when two runs are compared."""
    photo = None if row.photo_id is None else f"photo {row.photo_id}"
    sku = None if row.sku is None else f"like {row.sku}"
    conditions = f"[{', '.join(row.filters)}]" if row.filters else None
    return " + ".join(filter(None, (photo, sku, row.words, conditions)))


def _filters(row: LabelledRow) -> Filters:
    try:
        return parse(row.filters)
    except BadInput:  # written by a version that knew other conditions
        return Filters()
