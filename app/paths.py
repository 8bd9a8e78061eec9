"""Which path answers a search, and when it must hand over to the next one.

FAISS answers while a build that this snapshot may use can be opened; pgvector when there is none;
and the exact scan whenever an approximate path brings too little to fill the page. An approximate
path is as good as its measured recall, and never says that there is no more.
"""

from __future__ import annotations

import numpy as np

from app import filtered
from app.answers import (
    FURTHER,
    HNSW_MISSING,
    Answer,
    Ask,
    Ready,
    by_build,
    exact,
    looks,
    ready,
)
from app.config import Settings
from app.db.queries import embeddings, hnsw_index, index_delta, nearest
from app.db.queries.nearest import Candidates, settled
from app.index.file_store import IndexFiles


def find(ask: Ask, files: IndexFiles, settings: Settings) -> Answer:
    """The k nearest products, by the fastest path that can vouch for them."""
    if ask.filters:
        return filtered.find(ask, files, settings)
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
