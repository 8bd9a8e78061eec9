"""Which path answers a search, and when it must hand over to the next one.

FAISS answers while a build that this snapshot may use can be opened; pgvector when there is none;
and the exact scan whenever an approximate path brings too little to fill the page. An approximate
path is as good as its measured recall, and never says that there is no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import Connection

from app.ann import AnnIndex
from app.config import Settings
from app.errors import IndexUnreadable
from app.index_files import Fetch, IndexFiles
from app.ranking import Candidates, settled
from app.store import builds, chunks, neighbours, pictures
from app.values import Build, Filters, Model, SearchPath, Vector

OPENED_AT_ONCE = 32 << 20
"""Bytes; a larger new index is opened in the background while the one before it answers."""

FURTHER = 16
"""How many times as many pictures are looked at when the first look did not settle the answer."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the index and the table, inside one snapshot.

    `vector` has shape (dim,), float32, holding float16 values; `excluded` are product ids.
    """

    connection: Connection
    model: Model
    vector: Vector
    k: int
    filters: Filters = field(default_factory=Filters)
    excluded: Sequence[int] = ()


def first_look(k: int) -> int:
    """Pictures to look at first: a margin for vanished rows and several pictures a product."""
    return k + 16


@dataclass(frozen=True, slots=True)
class Answer:
    """The candidates, the path that found them and why it was that one."""

    candidates: Candidates
    path: SearchPath
    reason: str
    build: Build | None = None
    delta_rows: int | None = None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A build that this snapshot may use, open."""

    build: Build
    index: AnnIndex


def find(ask: Ask, files: IndexFiles, settings: Settings) -> Answer:
    """The k nearest products, by the fastest path that can vouch for them."""
    if ask.filters:
        hits = neighbours.exact_filtered(
            ask.connection, ask.model, ask.vector, ask.filters, k=ask.k, excluded=ask.excluded
        )
        return Answer(hits, "exact", "the filter is applied to every product")
    ready = _open(ask, files)
    answer = ready if isinstance(ready, str) else _by_faiss(ask, ready, settings.max_delta_rows)
    return answer if isinstance(answer, Answer) else _by_pgvector(ask, answer, settings)


def _open(ask: Ask, files: IndexFiles) -> _Ready | str:
    """The newest build this snapshot may use, or the reason why there is none."""
    usable = builds.usable(ask.connection, ask.model.id)
    if not usable:
        return "no index has been built yet"
    newest, *older = usable
    found = files.opened(newest)
    if found is None and newest.size > OPENED_AT_ONCE:
        for build in older:
            if (former := files.opened(build)) is not None:
                files.open_soon(newest, _fetch_apart(ask.connection))
                return _Ready(build, former)
    try:
        index = found or files.open(newest, _fetch(ask.connection))
    except IndexUnreadable as exc:
        return f"build {newest.id}: {exc}"
    if (index.dim, index.rows) != (ask.model.dim, newest.rows):
        return f"build {newest.id}: index file {newest.sha256}.faiss belongs to another build"
    return _Ready(newest, index)


def _fetch(connection: Connection) -> Fetch:
    """A build's file from the database, read in the search's own snapshot."""
    return lambda build: chunks.read(connection, build.id)


def _fetch_apart(connection: Connection) -> Fetch:
    """The same on a connection of its own, for when the search is over."""
    engine = connection.engine

    def fetch(build: Build) -> Iterator[bytes]:
        with engine.connect() as own:
            yield from chunks.read(own, build.id)

    return fetch


def _by_faiss(ask: Ask, ready: _Ready, allowed: int) -> Answer | str:
    """The answer with FAISS's help, or the reason why it cannot be had."""
    build = ready.build
    first = first_look(ask.k)
    for n in (first, first * FURTHER):
        found, delta = _near_build(ask, ready, n, allowed)
        if delta > allowed:
            return f"more than {allowed} embeddings changed since build {build.id}"
        if settled(found, ask.k):
            return by_build(found, build, delta)
    reason = f"build {build.id} nominated too few pictures that are still in the table"
    return Answer(exact(ask), "exact", reason, build, delta)


def by_build(found: Candidates, build: Build, delta: int) -> Answer:
    """The answer that a build and so many embeddings changed since gave."""
    reason = f"build {build.id} with {delta} embeddings changed since"
    return Answer(found, "faiss", reason, build, delta)


def _near_build(ask: Ask, ready: _Ready, n: int, allowed: int) -> tuple[Candidates, int]:
    unit = ask.vector / np.float32(np.linalg.norm(ask.vector))
    nominees = ready.index.nominate(unit, n, ask.k)
    return neighbours.near_build(
        ask.connection, ask.model, ready.build, ask.vector, nominees.ids,
        nominees.seen_to,
        n=n, k=ask.k, excluded=ask.excluded, allowed=allowed,
    )  # fmt: skip


def _by_pgvector(ask: Ask, reason: str, settings: Settings) -> Answer:
    limit = settings.exact_rows
    if pictures.count(ask.connection, ask.model, at_most=limit + 1) <= limit:
        return Answer(exact(ask), "exact", reason)
    first = 4 * first_look(ask.k)  # its recall grows with it
    for n in (first, first * FURTHER):
        found = neighbours.hnsw(
            ask.connection, ask.model, ask.vector, n=n, k=ask.k, excluded=ask.excluded
        )
        if settled(found, ask.k):
            return Answer(found, "pgvector-hnsw", reason)
    return Answer(exact(ask), "exact", f"{reason}; pgvector's index found too few pictures")


def exact(ask: Ask) -> Candidates:
    """Scan the table, looking at more pictures until the first k products cannot change."""
    n = first_look(ask.k)
    while True:
        found = neighbours.exact(
            ask.connection, ask.model, ask.vector, n=n, k=ask.k, excluded=ask.excluded
        )
        if settled(found, ask.k):
            return found
        n *= FURTHER
