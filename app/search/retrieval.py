"""What a search asks of the index and the table, what they answer, and the build it may use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from app.db.queries import index_builds, nearest
from app.db.queries.nearest import Candidates, is_complete
from app.errors import IndexUnreadable
from app.index.faiss_index import AnnIndex
from app.index.file_store import Fetch, IndexFiles
from app.types import Build, Filters, Model, SearchPath, Vector

OPENED_AT_ONCE = 32 << 20
"""Bytes; a larger new index is opened in the background while the one before it answers."""

HNSW_MISSING = "pgvector's index is missing, so all were compared"

RETRY_FACTOR = 16
"""How many times as many pictures are looked at when the first look did not settle the answer."""


@dataclass(frozen=True, slots=True)
class RetrievalRequest:
    """One question to the index and the table, inside one snapshot.

    `vector` has shape (dim,), float32, holding float16 values; `excluded` are product ids.
    """

    connection: Connection
    model: Model
    vector: Vector
    k: int
    filters: Filters = field(default_factory=Filters)
    excluded: Sequence[int] = ()

    @property
    def depth(self) -> int:
        """How deep the last product wanted lies: an index has to be as thorough as that."""
        return self.k + len(self.excluded)

    @property
    def initial_fetch(self) -> int:
        """Pictures to look at first; those of excluded products may be the nearest of all."""
        return initial_fetch(self.depth)


def initial_fetch(k: int) -> int:
    """Pictures to look at first: a margin for vanished rows and several pictures a product."""
    return k + 16


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """The candidates, the path that found them and why it was that one."""

    candidates: Candidates
    path: SearchPath
    reason: str
    build: Build | None = None
    delta_rows: int | None = None


@dataclass(frozen=True, slots=True)
class OpenBuild:
    """A build that this snapshot may use, open."""

    build: Build
    index: AnnIndex


def ready(ask: RetrievalRequest, files: IndexFiles) -> OpenBuild | str:
    """The newest build this snapshot may use, or the reason why there is none."""
    usable = index_builds.usable(ask.connection, ask.model.id)
    if not usable:
        return "no index has been built yet"
    newest, *older = usable
    found = files.opened(newest)
    if found is None and newest.size > OPENED_AT_ONCE:
        for build in older:
            if (former := files.opened(build)) is not None:
                files.open_soon(newest, _fetch_apart(ask.connection))
                return OpenBuild(build, former)
    try:
        index = found or files.open(newest, _fetch(ask.connection))
    except IndexUnreadable as exc:
        return f"build {newest.id}: {exc}"
    if (index.dim, index.rows) != (ask.model.dim, newest.rows):
        return f"build {newest.id}: index file {newest.sha256}.faiss belongs to another build"
    return OpenBuild(newest, index)


def _fetch(connection: Connection) -> Fetch:
    """A build's file from the database, read in the search's own snapshot."""
    return lambda build: index_builds.read_file(connection, build.id)


def _fetch_apart(connection: Connection) -> Fetch:
    """The same on a connection of its own, for when the search is over."""
    engine = connection.engine

    def fetch(build: Build) -> Iterator[bytes]:
        with engine.connect() as own:
            yield from index_builds.read_file(own, build.id)

    return fetch


def fetch_rounds(first: int, depth: int) -> Iterator[tuple[int, int]]:
    """How many pictures to nominate, and how thoroughly: the second look as much deeper."""
    yield first, depth
    yield first * RETRY_FACTOR, depth * RETRY_FACTOR


def by_build(found: Candidates, build: Build, delta: int) -> RetrievalResult:
    """The answer that a build and so many embeddings changed since gave."""
    reason = f"build {build.id} with {delta} embeddings changed since"
    return RetrievalResult(found, "faiss", reason, build, delta)


def by_filtered(found: Candidates, build: Build, delta: int, *, deeper: bool) -> RetrievalResult:
    """The same with a filter: `deeper` and then filtered, or among the pictures that pass."""
    how = "searched deeper, then filtered" if deeper else "searched among what passes"
    reason = f"build {build.id} {how}, {delta} embeddings changed since"
    # What does not pass has not vanished.
    return RetrievalResult(replace(found, vanished=0), "faiss-filtered", reason, build, delta)


def exact(ask: RetrievalRequest) -> Candidates:
    """Scan the table, looking at more pictures until the first k products cannot change."""
    n = ask.initial_fetch
    while True:
        found = nearest.exact(
            ask.connection, ask.model, ask.vector, n=n, k=ask.k, excluded=ask.excluded
        )
        if is_complete(found, ask.k):
            return found
        n *= RETRY_FACTOR
