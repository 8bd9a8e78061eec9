"""Retrieval requests and results, and fetch rounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.db.queries import nearest
from app.db.queries.nearest import Candidates, is_complete
from app.index import faiss_index
from app.index.faiss_library import one_thread
from app.index.id_selectors import ExcludedIds, IdSelector
from app.index.nominees import NominatingIndex, Nominees
from app.types import Build, BuildPart, Filters, Hit, Model, ReasonCode, SearchPath, Vector, Vectors
from app.vectors import round_to_float16, unit, unit_rows

WINDOW_NOMINEES = 4
"""Pictures that the index nominates for each window of a photo."""

RETRY_FACTOR = 16
"""The second fetch round asks for this many times as many pictures as the first."""


@dataclass(frozen=True, slots=True)
class NearestRequest:
    """Which products to retrieve: the `k` nearest to a vector that pass the filters.

    `vector` has shape (dim,), float32, holding float16 values; `excluded` are product ids, `hidden`
    picture ids. `passed` are the pictures (ids) of the excluded products, if they were read: an
    index does not nominate them, and PostgreSQL adds those that other products show too. With
    vectors in `also`, of the same kind, a product's distance is that of the nearest vector.
    """

    model: Model
    vector: Vector
    k: int
    filters: Filters = field(default_factory=Filters)
    excluded: Sequence[int] = ()
    also: tuple[Vector, ...] = ()
    hidden: tuple[int, ...] = ()
    passed: tuple[int, ...] = ()

    @property
    def alternatives(self) -> list[Self]:
        """A request for each of the vectors alone."""
        return [replace(self, vector=vector, also=()) for vector in (self.vector, *self.also)]

    @property
    def rank(self) -> int:
        """Rank of the last product needed, where nothing is passed over: excluded products and
        hidden pictures may be the nearest of all."""
        return self.k + len(self.excluded) + len(self.hidden)

    @property
    def initial_fetch(self) -> int:
        """Pictures of the first fetch round where nothing is passed over."""
        return initial_fetch(self.rank)

    @property
    def fetch(self) -> IndexFetch:
        """What an index is asked for."""
        return index_fetch(self.k, self.excluded, self.hidden, self.passed)


@dataclass(frozen=True, slots=True)
class RetrievalRequest(NearestRequest):
    """The same, inside the snapshot of a connection."""

    connection: Connection = field(kw_only=True)

    @classmethod
    def of(cls, target: NearestRequest, connection: Connection) -> RetrievalRequest:
        """The request for a target in the snapshot of `connection`."""
        values = {each.name: getattr(target, each.name) for each in fields(NearestRequest)}
        return cls(**values, connection=connection)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a path answered: a code to decide by and a sentence to show."""

    code: ReasonCode
    text: str

    def extended(self, detail: str) -> Reason:
        """The same reason with a further detail in its text."""
        return Reason(self.code, f"{self.text}; {detail}")


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """The candidates, the path that found them and the reason for that path."""

    candidates: Candidates
    path: SearchPath
    reason: Reason
    build: Build | None = None
    delta_rows: int | None = None


@dataclass(frozen=True, slots=True)
class IndexFetch:
    """The `depth` nearest pictures that an index is asked for, behind the `excluded` ones."""

    depth: int
    excluded: ExcludedIds | None = None

    @property
    def passed(self) -> int:
        """The number of pictures that are passed over."""
        return len(self.excluded) if self.excluded else 0


@dataclass(frozen=True, slots=True)
class FetchRound:
    """How many pictures (`n`) the index nominates, and with which nprobe it searches.

    nprobe is the one tuned for recall@`depth`, behind the `excluded` pictures, which are not
    nominated. With a `selector` only the pictures in it are searched, all of them, whatever the
    depth. Of those found without one, only those that are in `passing` are nominated.
    """

    n: int
    depth: int
    selector: IdSelector | None = None
    passing: IdSelector | None = None
    excluded: ExcludedIds | None = None


def index_fetch(
    k: int, excluded: Sequence[int], hidden: Sequence[int], passed: Sequence[int]
) -> IndexFetch:
    """What an index is asked for, so that the `k` nearest products are among what it finds.

    Hidden pictures are passed over, and the pictures of excluded products (ids) as far as they are
    known (`passed`); excluded products without known pictures may be the nearest of all.
    """
    over = [*passed, *hidden]
    depth = k if passed else k + len(excluded)
    return IndexFetch(depth, ExcludedIds(np.array(over, np.int64)) if over else None)


def initial_fetch(k: int) -> int:
    """Pictures of the first fetch round: k, and a margin for vanished rows and for products with
    several pictures."""
    return k + 16


def fetch_rounds(
    fetch: IndexFetch, selector: IdSelector | None = None, factor: int = 1
) -> Iterator[FetchRound]:
    """The first fetch round, `factor` times as large as usual, and the larger second one."""
    n, depth = initial_fetch(fetch.depth) * factor, fetch.depth * factor
    for times in (1, RETRY_FACTOR):
        yield FetchRound(n * times, depth * times, selector, excluded=fetch.excluded)


def deep_round(fetch: IndexFetch, share: float, passing: IdSelector | None = None) -> FetchRound:
    """A round of a search whose results are filtered afterwards, by a filter that a share (0 to 1)
    of all pictures passes."""
    rank = fetch.depth + fetch.passed
    n, depth = faiss_index.deep_search_size(initial_fetch(rank), rank, share)
    return FetchRound(n - fetch.passed, depth - fetch.passed, None, passing, fetch.excluded)


def nominate(index: NominatingIndex, vector: Vector, fetch_round: FetchRound) -> Nominees:
    """The pictures that an index nominates for a query vector of any length, shape (dim,)."""
    nominees = index.nominate(
        unit(vector), fetch_round.n, fetch_round.depth,
        selector=fetch_round.selector, excluded=fetch_round.excluded,
    )  # fmt: skip
    return nominees if fetch_round.passing is None else nominees.among(fetch_round.passing)


def nominate_each(
    index: NominatingIndex, vectors: Sequence[Vector], fetch_round: FetchRound
) -> list[Nominees]:
    """The pictures that an index nominates for each of several query vectors, in one search."""
    every = index.nominate_each(
        np.stack([unit(vector) for vector in vectors]), fetch_round.n, fetch_round.depth,
        selector=fetch_round.selector,
    )  # fmt: skip
    passing = fetch_round.passing
    return every if passing is None else [each.among(passing) for each in every]


def nominate_windows(
    index: NominatingIndex, near: Vectors
) -> tuple[NDArray[np.int64], tuple[BuildPart, ...]]:
    """The ids of the pictures that an index nominates for the windows of a photo, whose unit
    vectors are `near`, (n, dim): (n, m), -1 where there is none; and the parts that did not
    answer."""
    count = min(WINDOW_NOMINEES, index.rows)
    with one_thread():
        _, nominated, missing = index.found(unit_rows(round_to_float16(near)), count)
    return nominated, missing


def build_result(candidates: Candidates, build: Build, delta_rows: int) -> RetrievalResult:
    """The result of a build and its delta, without a filter."""
    text = f"build {build.id} with {delta_rows} embeddings changed since"
    return RetrievalResult(candidates, "faiss", Reason("build", text), build, delta_rows)


def filtered_build_result(
    candidates: Candidates, build: Build, delta_rows: int, *, deeper: bool
) -> RetrievalResult:
    """The result of a build and its delta, with a filter.

    `deeper`: searched deeper and then filtered; otherwise searched among the pictures that pass.
    """
    how = "searched deeper, then filtered" if deeper else "searched among what passes"
    text = f"build {build.id} {how}, {delta_rows} embeddings changed since"
    # A nominee that does not pass the filter has not vanished.
    candidates = replace(candidates, vanished=0)
    return RetrievalResult(candidates, "faiss-filtered", Reason("filter", text), build, delta_rows)


def best_hits(lists: Iterable[Iterable[Hit]]) -> list[Hit]:
    """The nearest hit of each product in any of the lists, nearest first; ties by product id."""
    best: dict[int, Hit] = {}
    for hit in (hit for hits in lists for hit in hits):
        if hit.product_id not in best or hit.distance < best[hit.product_id].distance:
            best[hit.product_id] = hit
    return sorted(best.values(), key=lambda hit: (hit.distance, hit.product_id))


def similarities(hits: Sequence[Hit], most: int) -> tuple[float, ...]:
    """The cosine similarities of the first `most` hits, in their order."""
    return tuple(hit.similarity for hit in hits[:most])


def exact_search(request: RetrievalRequest) -> Candidates:
    """The nearest of all products, filters ignored, by scanning the table.

    Reads more pictures until the first k products cannot change.
    """
    n = request.initial_fetch
    while True:
        candidates = nearest.exact(
            request.connection, request.model, request.vector,
            n=n, k=request.k, excluded=request.excluded, hidden=request.hidden,
        )  # fmt: skip
        if is_complete(candidates, request.k):
            return candidates
        n *= RETRY_FACTOR
