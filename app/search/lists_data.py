"""ListsData: fills the pages of a photo and of its objects from the one statement that found all of
their hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.config import Settings
from app.db.queries import nearest, page_lookups
from app.db.queries.nearest import Candidates
from app.db.queries.vector_lists import Lead, ListsRequest, ListsResult
from app.search.dedup import needs_dedup
from app.search.fast_path import FastPath, NotAnswered
from app.search.matches import REGION_MATCHES
from app.search.page_budget import first_size
from app.search.retrieval import (
    NearestRequest,
    RetrievalResult,
    best_hits,
    build_result,
    filtered_build_result,
)
from app.search.statement_data import StatementData
from app.types import Build, Hit, Model, Query, Vector

Lists = tuple[tuple[Vector, ...], ...]


class ListsData(StatementData):
    """What the pages of a photo and of its objects are made from, out of one statement.

    The first of the `lists` of vectors (dim,) is the photo as a whole, each of the others an
    object. A request is answered from the lists that its vectors make up: a merged list from
    several. A page that needs more of its lists takes another statement; else as `StatementData`.
    """

    def __init__(
        self,
        fast_path: FastPath,
        model: Model,
        build: Build,
        query: Query,
        settings: Settings,
        lists: Lists,
        merged: int,
    ) -> None:
        """The first `merged` lists may count on the photo's page."""
        super().__init__(fast_path, model, build, query, settings)
        self._lists = lists
        self._merged = merged
        self._found: dict[tuple[int, tuple[int, ...]], tuple[Candidates, int, ListsResult]] = {}
        """The candidates of each list without these pictures, how many were asked for, and what
        they were read with."""
        self._newest: Sequence[Any] = ()
        self._earlier_hits: list[list[Hit]] | None = None

    def read(self, request: NearestRequest, lead: Lead | None) -> bool:
        """Read the first hits of all lists: of objects those of their own pages, and of those that
        may count those of the photo's page, if the first object has the `lead` (None: always).
        Returns whether it has."""
        size = first_size(self._query, self._query.k)
        return self._read_lists(request, range(len(self._lists)), size, self._merged, lead)

    def retrieve(self, request: NearestRequest) -> RetrievalResult:
        """The nearest products to any of the vectors of a request."""
        numbers, hidden = self._numbers(request), tuple(request.hidden)
        known = [self._found.get((number, hidden)) for number in numbers]
        if not self._found and not hidden:
            self.read(request, None)
            known = [self._found.get((number, hidden)) for number in numbers]
        if any(each is None or each[1] < request.k for each in known):
            self._read_lists(request, numbers, request.k, len(numbers))
        found = [self._found[number, hidden] for number in numbers]
        hits = tuple(best_hits(each.hits for each, *_ in found)[: request.k])
        candidates = Candidates(
            hits, None, sum(each.examined for each, *_ in found),
            sum(each.vanished for each, *_ in found),
        )  # fmt: skip
        _, _, result = found[0]
        if request.filters:
            return filtered_build_result(
                candidates, self._build, result.delta_rows, deeper=result.deeper
            )
        return build_result(candidates, self._build, result.delta_rows)

    def earlier(self, request: NearestRequest, skus: Sequence[str]) -> list[Hit]:
        """The products of earlier pages by their pictures nearest to any of the vectors."""
        if self._earlier_hits is None:
            with self._fast_path.connection() as connection:
                rows = page_lookups.earlier_by_list(
                    connection, self.model, self._lists, skus,
                    vectors=self._query.near_match is not None,
                )  # fmt: skip
            self._earlier = {row.id: row for row in rows}
            if self._query.near_match is not None:
                self._packed |= {row.picture_id: row.vector for row in rows}
            self._earlier_hits = [[] for _ in self._lists]
            for row in rows:
                self._earlier_hits[row.list - 1].append(Hit(row.id, row.picture_id, row.distance))
        return best_hits(self._earlier_hits[number] for number in self._numbers(request))

    def pictures_of(self, ids: Sequence[int]) -> tuple[int, ...]:
        """None: the index passes over nothing for several lists."""
        return ()

    def _numbers(self, request: NearestRequest) -> list[int]:
        """Which lists the vectors of a request make up."""
        asked = {id(vector) for vector in (request.vector, *request.also)}
        numbers = [
            number for number, own in enumerate(self._lists) if asked >= {id(each) for each in own}
        ]
        if sum(len(self._lists[number]) for number in numbers) != 1 + len(request.also):
            raise NotAnswered
        return numbers

    def _read_lists(
        self,
        request: NearestRequest,
        numbers: Sequence[int],
        k: int,
        merged: int,
        lead: Lead | None = None,
    ) -> bool:
        hidden = tuple(request.hidden)
        own_page = min(self._query.k, REGION_MATCHES)
        result = self._fast_path.find_lists(
            ListsRequest(
                self.model, self._build, [self._lists[number] for number in numbers],
                k=k, k_apart=first_size(self._query, own_page),
                thumbnails=self._thumbnails(self._query.k, k),
                thumbnails_apart=self._thumbnails(own_page, k),
                merged=merged, lead=lead, filter_clause=nearest.filter_clause(request.filters),
                excluded=tuple(request.excluded), hidden=hidden, extras=self._extras(),
            )
        )  # fmt: skip
        if result is None:
            raise NotAnswered
        for number, candidates, size in zip(numbers, result.candidates, result.ks, strict=True):
            self._found[number, hidden] = candidates, size, result
        self._newest = [self._kept(row) for own in result.rows for row in own]
        self._remember([*self._read, *self._newest], result.lag)
        return result.leads

    def _thumbnails(self, places: int, size: int) -> int:
        """Thumbnails to read for a page of so many places, of `size` products."""
        return places + places // 3 if needs_dedup(self._query) else size

    def _kept(self, row: Any) -> Any:
        """Keep a row, with what another one of its product or of its picture has and it lacks."""
        hit = row.product_id, row.picture_id
        known, product = self._hits.get(hit), self._rows.get(row.product_id)
        if row.thumbnail is None and known is not None:
            row = row._replace(thumbnail=known.thumbnail)
        if self._query.fold and row.same_words is None and product is not None:
            row = row._replace(same_words=product.same_words)
        self._hits[hit] = self._rows[row.product_id] = row
        return row

    def _told(self, column: str) -> Sequence[Mapping[str, Any]]:
        """Verdicts are read on all products that are known, calibrations of new ones only."""
        if column == "verdicts":
            return (self._newest[0].verdicts if self._newest else None) or ()
        told = [each for row in self._read for each in getattr(row, column) or ()]
        return list({each["category"]: each for each in told}.values())
