"""One catalogue with a build in one file and one in parts, both of the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from app.bootstrap import App
from app.index import faiss_index
from app.index.builder import Fill, Indexer, fill_here
from app.index.faiss_index import AnnIndex
from app.index.faiss_library import faiss
from app.types import Build, SearchResult
from support.recall_queries import few_queries

FLAT_ROWS = 5
PART_ROWS = 9


def small_parts(patch: pytest.MonkeyPatch) -> None:
    """Build inverted lists of very few rows, and measure them quickly."""
    patch.setattr(faiss_index, "FLAT_ROWS", FLAT_ROWS)
    few_queries(patch, 20)


class BothForms:
    """Builds an index in one file and then one in parts, in place of the indexer of an app."""

    def __init__(self, app: App, part_rows: int = PART_ROWS) -> None:
        self._one = app.indexer
        parted = app.settings.model_copy(update={"index_part_rows": part_rows})
        self._parts = Indexer(app.engine, app.files, parted)
        app.__dict__["indexer"] = self

    def rebuild(self) -> Build:
        self.one = self._one.rebuild()
        return self.rebuild_parts()

    def rebuild_parts(self, filled: Fill = fill_here) -> Build:
        """The build in parts alone, filled otherwise."""
        self.parts = self._parts.rebuild(fill=filled)
        return self.parts

    @contextmanager
    def only_one_file(self, sql: psycopg.Connection) -> Iterator[None]:
        """Searches use the build in one file."""
        update = "UPDATE index_build SET state = %s WHERE id = %s"
        sql.execute(update, ["retired", self.parts.id])
        try:
            yield
        finally:
            sql.execute(update, ["published", self.parts.id])


def answered(result: SearchResult) -> tuple[object, ...]:
    """Everything about an answer that does not depend on the path that gave it."""
    plan = result.plan
    return (
        result.matches, result.dropped, result.regions, result.confidence, result.close,
        plan.shortfall, plan.shortfall_counts, plan.unknown,
    )  # fmt: skip


def by_list(index: AnnIndex) -> set[tuple[int, int, bytes]]:
    """The rows of an index in inverted lists: list, id and code."""
    lists, rows = index.faiss_index.invlists, set[tuple[int, int, bytes]]()
    for number in range(lists.nlist):
        if size := lists.list_size(number):
            ids = faiss().rev_swig_ptr(lists.get_ids(number), size)
            codes = faiss().rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
            encoded = [each.tobytes() for each in codes.reshape(size, -1)]
            rows |= {(number, *each) for each in zip(ids.tolist(), encoded, strict=True)}
    return rows
