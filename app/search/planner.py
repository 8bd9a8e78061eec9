"""Which path answers a search with a filter, by how many products pass.

Few: all their pictures are compared in SQL. Many: the index is looked into deeper, and what does
not pass falls away. In between, or where those that pass lie far from the query, the index is
searched among the pictures that pass. The first guess comes from PostgreSQL's statistics; each path
notices when it was wrong and hands over to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.config import Settings
from app.db.queries import embeddings, hnsw_index, index_delta, nearest, query_samples
from app.db.queries.nearest import Candidates, FilterClause, is_complete
from app.index import faiss_index
from app.index.faiss_index import IdSelector
from app.index.file_store import IndexFiles
from app.search.retrieval import (
    HNSW_MISSING,
    RETRY_FACTOR,
    OpenBuild,
    RetrievalRequest,
    RetrievalResult,
    by_build,
    by_filtered,
    exact,
    fetch_rounds,
    ready,
)
from app.types import Crossovers
from app.vectors import unit

DEEPEST = 4000
"""Pictures that are nominated at most to be filtered afterwards."""


EXACT = "the filter leaves few products, all compared"


@dataclass(frozen=True, slots=True)
class FilteredRequest:
    """A question with its filter as SQL, and where to change paths."""

    ask: RetrievalRequest
    only: FilterClause
    crossovers: Crossovers
    settings: Settings


def find_filtered(ask: RetrievalRequest, files: IndexFiles, settings: Settings) -> RetrievalResult:
    """The k nearest products that pass the filter, by the cheapest path that can vouch for them."""
    only = nearest.filter_clause(ask.filters)
    crossovers = query_samples.read_crossovers(ask.connection, ask.model.id)
    question = FilteredRequest(ask, only, crossovers, settings)
    estimate, products = nearest.estimate_filter(ask.connection, only)
    few = estimate <= 4 * crossovers.exact_pictures
    if few and (answer := exactly(question, crossovers.exact_pictures)) is not None:
        return answer
    found = ready(ask, files)
    if isinstance(found, str):
        return _filtered_by_pgvector(question, found)
    share = estimate / max(products, estimate, 1)
    return _filtered_by_faiss(question, found, share)


def exactly(
    question: FilteredRequest, allowed: int | None, reason: str = EXACT
) -> RetrievalResult | None:
    """The answer from all pictures that pass; None if those are more than `allowed`."""
    ask = question.ask
    found = nearest.exact_filtered(
        ask.connection, ask.model, ask.vector, question.only,
        k=ask.k, excluded=ask.excluded, allowed=allowed,
    )  # fmt: skip
    return None if found is None else RetrievalResult(found, "exact", reason)


def deep(question: FilteredRequest, found: OpenBuild, share: float) -> RetrievalResult | str:
    """The answer from so many nominees that enough of them should pass, or why there is none."""
    n, depth = faiss_index.deep_search_size(question.ask.initial_fetch, question.ask.depth, share)
    return _look(question, found, min(n, DEEPEST), depth, None)


def among(question: FilteredRequest, found: OpenBuild) -> RetrievalResult | str:
    """The answer of the index among the pictures that pass, or why there is none."""
    ids = nearest.filtered_picture_ids(question.ask.connection, question.only)
    only, n = IdSelector(ids), question.ask.initial_fetch
    answer = _look(question, found, n, n, only)
    return (
        answer
        if isinstance(answer, RetrievalResult)
        else _look(question, found, n * RETRY_FACTOR, n, only)
    )


def _filtered_by_faiss(
    question: FilteredRequest, found: OpenBuild, share: float
) -> RetrievalResult:
    said: RetrievalResult | str = ""
    if share >= question.crossovers.deep_share:
        said = deep(question, found, share)
    if not isinstance(said, RetrievalResult):
        said = among(question, found)
    return said if isinstance(said, RetrievalResult) else _all(question, said)


def _look(
    question: FilteredRequest, found: OpenBuild, n: int, depth: int, only: IdSelector | None
) -> RetrievalResult | str:
    ask, build, allowed = question.ask, found.build, question.settings.max_delta_rows
    nominees = found.index.nominate(unit(ask.vector), n, depth, only=only)
    candidates, delta = index_delta.nearest(
        ask.connection, ask.model, build, ask.vector, nominees.ids, nominees.seen_to,
        n=n, k=ask.k, excluded=ask.excluded, allowed=allowed,
        filter_clause=question.only,
    )  # fmt: skip
    if delta > allowed:
        return f"more than {allowed} embeddings changed since build {build.id}"
    if not is_complete(candidates, ask.k):
        return f"build {build.id} nominated too few pictures that pass the filter"
    return by_filtered(candidates, build, delta, deeper=only is None)


def _filtered_by_pgvector(question: FilteredRequest, reason: str) -> RetrievalResult:
    """Without an index: all that pass, unless they are many; then pgvector's index first."""
    ask = question.ask
    few = exactly(question, question.settings.exact_rows, reason)
    if few is not None:
        return few
    if not hnsw_index.usable(ask.connection, ask.model.id):
        return _all(question, f"{reason}; {HNSW_MISSING}")
    first = 4 * ask.initial_fetch
    for n in (first, first * RETRY_FACTOR):
        found = nearest.hnsw(
            ask.connection, ask.model, ask.vector,
            n=n, k=ask.k, excluded=ask.excluded, filter_clause=question.only,
        )  # fmt: skip
        if is_complete(found, ask.k):
            return RetrievalResult(found, "pgvector-hnsw", reason)
    return _all(question, f"{reason}; pgvector's index found too few pictures")


def _all(question: FilteredRequest, reason: str) -> RetrievalResult:
    answer = exactly(question, None, reason)
    assert answer is not None
    return answer


def find(ask: RetrievalRequest, files: IndexFiles, settings: Settings) -> RetrievalResult:
    """The k nearest products, by the fastest path that can vouch for them."""
    if ask.filters:
        return find_filtered(ask, files, settings)
    found = ready(ask, files)
    answer = found if isinstance(found, str) else _by_faiss(ask, found, settings.max_delta_rows)
    return answer if isinstance(answer, RetrievalResult) else _by_pgvector(ask, answer, settings)


def _by_faiss(ask: RetrievalRequest, ready: OpenBuild, allowed: int) -> RetrievalResult | str:
    """The answer with FAISS's help, or the reason why it cannot be had."""
    build = ready.build
    for n, depth in fetch_rounds(ask.initial_fetch, ask.depth):
        found, delta = _near_build(ask, ready, n, depth, allowed)
        if delta > allowed:
            return f"more than {allowed} embeddings changed since build {build.id}"
        if is_complete(found, ask.k):
            return by_build(found, build, delta)
    reason = f"build {build.id} nominated too few pictures that are still in the table"
    return RetrievalResult(exact(ask), "exact", reason, build, delta)


def _near_build(
    ask: RetrievalRequest, ready: OpenBuild, n: int, depth: int, allowed: int
) -> tuple[Candidates, int]:
    nominees = ready.index.nominate(unit(ask.vector), n, depth)
    return index_delta.nearest(
        ask.connection, ask.model, ready.build, ask.vector, nominees.ids, nominees.seen_to,
        n=n, k=ask.k, excluded=ask.excluded, allowed=allowed,
    )  # fmt: skip


def _by_pgvector(ask: RetrievalRequest, reason: str, settings: Settings) -> RetrievalResult:
    limit = settings.exact_rows
    if embeddings.count_up_to(ask.connection, ask.model, at_most=limit + 1) <= limit:
        return RetrievalResult(exact(ask), "exact", reason)
    if not hnsw_index.usable(ask.connection, ask.model.id):
        return RetrievalResult(exact(ask), "exact", f"{reason}; {HNSW_MISSING}")
    first = 4 * ask.initial_fetch  # its recall grows with it
    for n in (first, first * RETRY_FACTOR):
        found = nearest.hnsw(
            ask.connection, ask.model, ask.vector, n=n, k=ask.k, excluded=ask.excluded
        )
        if is_complete(found, ask.k):
            return RetrievalResult(found, "pgvector-hnsw", reason)
    return RetrievalResult(
        exact(ask), "exact", f"{reason}; pgvector's index found too few pictures"
    )
