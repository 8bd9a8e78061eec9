"""Which path answers a search with a filter, by how many products pass.

Few: all their pictures are compared in SQL. Many: the index is looked into deeper, and what does
not pass falls away. In between, or where those that pass lie far from the query, the index is
searched among the pictures that pass. The first guess comes from PostgreSQL's statistics; each path
notices when it was wrong and hands over to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.config import Settings
from app.db.queries import embeddings, hnsw_index, index_delta, nearest, query_samples
from app.db.queries.nearest import Candidates, Passing, settled
from app.index import faiss_index
from app.index.faiss_index import Only
from app.index.file_store import IndexFiles
from app.search.retrieval import (
    FURTHER,
    HNSW_MISSING,
    Answer,
    Ask,
    Ready,
    by_build,
    by_filtered,
    exact,
    looks,
    ready,
)
from app.types import Crossovers

DEEPEST = 4000
"""Pictures that are nominated at most to be filtered afterwards."""


EXACT = "the filter leaves few products, all compared"


@dataclass(frozen=True, slots=True)
class Filtered:
    """A question with its filter as SQL, and where to change paths."""

    ask: Ask
    only: Passing
    crossovers: Crossovers
    settings: Settings


def find_filtered(ask: Ask, files: IndexFiles, settings: Settings) -> Answer:
    """The k nearest products that pass the filter, by the cheapest path that can vouch for them."""
    only = nearest.passing(ask.filters)
    crossovers = query_samples.read_crossovers(ask.connection, ask.model.id)
    question = Filtered(ask, only, crossovers, settings)
    estimate, products = nearest.passing_estimate(ask.connection, only)
    few = estimate <= 4 * crossovers.exact_pictures
    if few and (answer := exactly(question, crossovers.exact_pictures)) is not None:
        return answer
    found = ready(ask, files)
    if isinstance(found, str):
        return _filtered_by_pgvector(question, found)
    share = estimate / max(products, estimate, 1)
    return _filtered_by_faiss(question, found, share)


def exactly(question: Filtered, allowed: int | None, reason: str = EXACT) -> Answer | None:
    """The answer from all pictures that pass; None if those are more than `allowed`."""
    ask = question.ask
    found = nearest.exact_filtered(
        ask.connection, ask.model, ask.vector, question.only,
        k=ask.k, excluded=ask.excluded, allowed=allowed,
    )  # fmt: skip
    return None if found is None else Answer(found, "exact", reason)


def deep(question: Filtered, found: Ready, share: float) -> Answer | str:
    """The answer from so many nominees that enough of them should pass, or why there is none."""
    n, depth = faiss_index.deep_look(question.ask.first_look, question.ask.depth, share)
    return _look(question, found, min(n, DEEPEST), depth, None)


def among(question: Filtered, found: Ready) -> Answer | str:
    """The answer of the index among the pictures that pass, or why there is none."""
    ids = nearest.passing_pictures(question.ask.connection, question.only)
    only, n = Only(ids), question.ask.first_look
    answer = _look(question, found, n, n, only)
    return answer if isinstance(answer, Answer) else _look(question, found, n * FURTHER, n, only)


def _filtered_by_faiss(question: Filtered, found: Ready, share: float) -> Answer:
    said: Answer | str = ""
    if share >= question.crossovers.deep_share:
        said = deep(question, found, share)
    if not isinstance(said, Answer):
        said = among(question, found)
    return said if isinstance(said, Answer) else _all(question, said)


def _look(question: Filtered, found: Ready, n: int, depth: int, only: Only | None) -> Answer | str:
    ask, build, allowed = question.ask, found.build, question.settings.max_delta_rows
    unit = ask.vector / np.float32(np.linalg.norm(ask.vector))
    nominees = found.index.nominate(unit, n, depth, only=only)
    candidates, delta = index_delta.near_build(
        ask.connection, ask.model, build, ask.vector, nominees.ids, nominees.seen_to,
        n=n, k=ask.k, excluded=ask.excluded, allowed=allowed, only=question.only,
    )  # fmt: skip
    if delta > allowed:
        return f"more than {allowed} embeddings changed since build {build.id}"
    if not settled(candidates, ask.k):
        return f"build {build.id} nominated too few pictures that pass the filter"
    return by_filtered(candidates, build, delta, deeper=only is None)


def _filtered_by_pgvector(question: Filtered, reason: str) -> Answer:
    """Without an index: all that pass, unless they are many; then pgvector's index first."""
    ask = question.ask
    few = exactly(question, question.settings.exact_rows, reason)
    if few is not None:
        return few
    if not hnsw_index.usable(ask.connection, ask.model.id):
        return _all(question, f"{reason}; {HNSW_MISSING}")
    first = 4 * ask.first_look
    for n in (first, first * FURTHER):
        found = nearest.hnsw(
            ask.connection, ask.model, ask.vector,
            n=n, k=ask.k, excluded=ask.excluded, only=question.only,
        )  # fmt: skip
        if settled(found, ask.k):
            return Answer(found, "pgvector-hnsw", reason)
    return _all(question, f"{reason}; pgvector's index found too few pictures")


def _all(question: Filtered, reason: str) -> Answer:
    answer = exactly(question, None, reason)
    assert answer is not None
    return answer


def find(ask: Ask, files: IndexFiles, settings: Settings) -> Answer:
    """The k nearest products, by the fastest path that can vouch for them."""
    if ask.filters:
        return find_filtered(ask, files, settings)
    found = ready(ask, files)
    answer = found if isinstance(found, str) else _by_faiss(ask, found, settings.max_delta_rows)
    return answer if isinstance(answer, Answer) else _by_pgvector(ask, answer, settings)


def _by_faiss(ask: Ask, ready: Ready, allowed: int) -> Answer | str:
    """The answer with FAISS's help, or the reason why it cannot be had."""
    build = ready.build
    for n, depth in looks(ask.first_look, ask.depth):
        found, delta = _near_build(ask, ready, n, depth, allowed)
        if delta > allowed:
            return f"more than {allowed} embeddings changed since build {build.id}"
        if settled(found, ask.k):
            return by_build(found, build, delta)
    reason = f"build {build.id} nominated too few pictures that are still in the table"
    return Answer(exact(ask), "exact", reason, build, delta)


def _near_build(ask: Ask, ready: Ready, n: int, depth: int, allowed: int) -> tuple[Candidates, int]:
    unit = ask.vector / np.float32(np.linalg.norm(ask.vector))
    nominees = ready.index.nominate(unit, n, depth)
    return index_delta.near_build(
        ask.connection, ask.model, ready.build, ask.vector, nominees.ids, nominees.seen_to,
        n=n, k=ask.k, excluded=ask.excluded, allowed=allowed,
    )  # fmt: skip


def _by_pgvector(ask: Ask, reason: str, settings: Settings) -> Answer:
    limit = settings.exact_rows
    if embeddings.count(ask.connection, ask.model, at_most=limit + 1) <= limit:
        return Answer(exact(ask), "exact", reason)
    if not hnsw_index.usable(ask.connection, ask.model.id):
        return Answer(exact(ask), "exact", f"{reason}; {HNSW_MISSING}")
    first = 4 * ask.first_look  # its recall grows with it
    for n in (first, first * FURTHER):
        found = nearest.hnsw(
            ask.connection, ask.model, ask.vector, n=n, k=ask.k, excluded=ask.excluded
        )
        if settled(found, ask.k):
            return Answer(found, "pgvector-hnsw", reason)
    return Answer(exact(ask), "exact", f"{reason}; pgvector's index found too few pictures")
