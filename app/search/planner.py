"""Chooses the path that answers a search: FAISS, pgvector's index or an exact scan.

A search without a filter uses FAISS if there is a usable build, else pgvector's
index, else the exact scan.
A filter changes that by how many products pass: if few, all their pictures are compared in SQL; if
many, the index is searched deeper and what does not pass is discarded; in between, or where the
products that pass lie far from the query, the index is searched among the pictures that pass. The
first estimate comes from PostgreSQL's statistics. Each path detects when the estimate was wrong;
the next path is then tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from app.config import Settings
from app.db.queries import embeddings, index_delta, nearest, pgvector_index, query_samples
from app.db.queries.nearest import Candidates, FilterClause, is_complete
from app.index.file_store import IndexFiles
from app.index.id_selectors import IdSelector
from app.index.nominees import Nominees
from app.search.index_swap import OpenBuild, open_build
from app.search.missing_parts import of_missing_parts, with_missing_parts
from app.search.retrieval import (
    RETRY_FACTOR,
    FetchRound,
    Reason,
    RetrievalRequest,
    RetrievalResult,
    best_hits,
    build_result,
    deep_round,
    exact_search,
    fetch_rounds,
    filtered_build_result,
    nominate,
)
from app.types import Build, BuildPart

MAX_DEEP_NOMINEES = 4000
"""Largest number of pictures that are nominated to be filtered afterwards."""

SLOWLY_READ = 100_000
"""Products that pass from which on a search nominates more before it reads the ids of all that
pass, even if `Crossovers.deep_share` says otherwise: 800,000 of ten million took 5.7 s to read."""

FEW_PASS = Reason("filter", "the filter leaves few products, all compared")


@dataclass(frozen=True, slots=True)
class PlannedSearch:
    """A request, its filter as SQL (`nearest.EVERYTHING` if it has none), and the settings."""

    request: RetrievalRequest
    filter_clause: FilterClause
    settings: Settings

    @property
    def is_filtered(self) -> bool:
        """Whether the filter may exclude products."""
        return bool(self.filter_clause.condition)


def find(request: RetrievalRequest, files: IndexFiles, settings: Settings) -> RetrievalResult:
    """The k nearest products that pass the filter, by the cheapest path that is complete.

    With several vectors, those of each are merged: the k nearest to any of them are among the k
    nearest to one. Path and reason are then those of the first.
    """
    results = [_find(each, files, settings) for each in request.alternatives]
    if len(results) == 1:
        return results[0]
    merged = best_hits(result.candidates.hits for result in results)
    examined = sum(result.candidates.examined for result in results)
    vanished = sum(result.candidates.vanished for result in results)
    candidates = Candidates(tuple(merged[: request.k]), None, examined, vanished)
    return replace(results[0], candidates=candidates)


def _find(request: RetrievalRequest, files: IndexFiles, settings: Settings) -> RetrievalResult:
    """The k nearest products to the one vector of a request."""
    search = PlannedSearch(request, nearest.filter_clause(request.filters), settings)
    rounds = _nearest_rounds(request)
    if search.is_filtered:
        crossovers = query_samples.read_crossovers(request.connection, request.model.id)
        estimate, products = nearest.estimate_filter(request.connection, search.filter_clause)
        if estimate <= 4 * crossovers.exact_pictures:
            few = compare_all(search, max_pictures=crossovers.exact_pictures)
            if few is not None:
                return RetrievalResult(few, "exact", FEW_PASS)
        share = estimate / max(products, estimate, 1)
        deep = share >= crossovers.deep_share or (
            estimate >= SLOWLY_READ and deep_round(request.fetch, share).n <= MAX_DEEP_NOMINEES
        )
        rounds = _filtered_rounds(search, share, deep=deep)
    build_or_reason = open_build(request, files)
    if isinstance(build_or_reason, Reason):
        return _by_pgvector(search, build_or_reason)
    result_or_reason = by_faiss(search, build_or_reason, rounds)
    if isinstance(result_or_reason, RetrievalResult):
        return result_or_reason
    exactly = search.is_filtered and result_or_reason.code != "part"
    return (_exact if exactly else _by_pgvector)(search, result_or_reason)


def compare_all(search: PlannedSearch, max_pictures: int | None = None) -> Candidates | None:
    """The answer from all pictures that pass; None if those are more than `max_pictures`."""
    request = search.request
    if search.is_filtered:
        return nearest.exact_filtered(
            request.connection, request.model, request.vector, search.filter_clause,
            k=request.k, excluded=request.excluded, hidden=request.hidden,
            max_pictures=max_pictures,
        )  # fmt: skip
    if max_pictures is not None:
        pictures = embeddings.count_up_to(
            request.connection, request.model, at_most=max_pictures + 1
        )
        if pictures > max_pictures:
            return None
    return exact_search(request)


def by_faiss(
    search: PlannedSearch, opened: OpenBuild, rounds: Iterable[FetchRound]
) -> RetrievalResult | Reason:
    """The answer of a build and its delta, or the reason why it has none.

    Without a filter, a build that nominates too few is answered by the exact scan.
    """
    build, max_delta_rows = opened.build, search.settings.max_delta_rows
    delta_rows, missing = 0, tuple[BuildPart, ...]()
    for fetch_round in rounds:
        nominees = nominate(opened.index, search.request.vector, fetch_round)
        if nominees.missing:
            missing = nominees.missing
            if len(missing) == len(build.parts):
                return Reason("part", f"no part of build {build.id} answered in time")
            nominees = with_missing_parts(
                nominees, search.request, build, fetch_round, search.settings.exact_rows
            )
        candidates, delta_rows = _ranked(search, build, fetch_round, nominees)
        if delta_rows > max_delta_rows:
            text = f"more than {max_delta_rows} embeddings changed since build {build.id}"
            return Reason("large_delta", text)
        if is_complete(candidates, search.request.k):
            if search.is_filtered:
                deeper = fetch_round.selector is None
                result = filtered_build_result(candidates, build, delta_rows, deeper=deeper)
            else:
                result = build_result(candidates, build, delta_rows)
            if missing:
                text = f"{result.reason.text}; {of_missing_parts(build, missing)}"
                result = replace(result, reason=Reason("part", text))
            return result
    needed = "pass the filter" if search.is_filtered else "are still in the table"
    reason = Reason("few_nominated", f"build {build.id} nominated too few pictures that {needed}")
    if search.is_filtered:
        return reason
    return RetrievalResult(exact_search(search.request), "exact", reason, build, delta_rows)


def _ranked(
    search: PlannedSearch, build: Build, fetch_round: FetchRound, nominees: Nominees
) -> tuple[Candidates, int]:
    """The candidates of one fetch round, by exact distance, and the number of rows in the build's
    delta."""
    request = search.request
    return index_delta.nearest(
        request.connection, request.model, build, request.vector,
        nominees.ids, nominees.seen_to,
        n=fetch_round.n, k=request.k, excluded=request.excluded, hidden=request.hidden,
        passed=request.passed, max_delta_rows=search.settings.max_delta_rows,
        filter_clause=search.filter_clause, known=nominees.known,
    )  # fmt: skip


def _nearest_rounds(request: RetrievalRequest) -> Iterator[FetchRound]:
    """The fetch rounds of a search without a filter."""
    return fetch_rounds(request.fetch)


def deep_rounds(request: RetrievalRequest, share: float) -> Iterator[FetchRound]:
    """One round with enough nominees that k of them should pass the filter, if the share (0 to 1)
    of the products that pass is `share`."""
    fetch_round = deep_round(request.fetch, share)
    yield replace(fetch_round, n=min(fetch_round.n, MAX_DEEP_NOMINEES))


def selector_rounds(search: PlannedSearch) -> Iterator[FetchRound]:
    """The fetch rounds of a search among the pictures that pass; their ids are read when the first
    round runs."""
    request = search.request
    selector = IdSelector(nearest.filtered_picture_ids(request.connection, search.filter_clause))
    yield from fetch_rounds(request.fetch, selector)


def _filtered_rounds(search: PlannedSearch, share: float, *, deep: bool) -> Iterator[FetchRound]:
    """The fetch rounds of a filtered search: with `deep`, first one that is filtered afterwards."""
    if deep:
        yield from deep_rounds(search.request, share)
    yield from selector_rounds(search)


def _by_pgvector(search: PlannedSearch, reason: Reason) -> RetrievalResult:
    """The answer without FAISS: an exact scan of up to `exact_rows` pictures, else pgvector's
    index, else an exact scan of all."""
    request = search.request
    few = compare_all(search, max_pictures=search.settings.exact_rows)
    if few is not None:
        return RetrievalResult(few, "exact", reason)
    index = pgvector_index.measured(request.connection, request.model.id)
    if index is None:
        return _exact(search, reason.extended("pgvector's index is missing, so all were compared"))
    n = 4 * request.initial_fetch
    for fetched in (n, n * RETRY_FACTOR):
        candidates = nearest.approximate(
            request.connection, request.model, index, request.vector,
            n=fetched, k=request.k, excluded=request.excluded, hidden=request.hidden,
            filter_clause=search.filter_clause,
        )  # fmt: skip
        if is_complete(candidates, request.k):
            measured = (
                f"pgvector's index answered, with a recall@10 of {index.recall_at_10:.3f} when it "
                f"was measured over {index.rows:,} embeddings"
            )
            return RetrievalResult(candidates, "pgvector", reason.extended(measured))
    return _exact(search, reason.extended("pgvector's index found too few pictures"))


def _exact(search: PlannedSearch, reason: Reason) -> RetrievalResult:
    candidates = compare_all(search)
    assert candidates is not None  # without a maximum there is always an answer
    return RetrievalResult(candidates, "exact", reason)
