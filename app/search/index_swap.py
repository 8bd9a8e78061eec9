"""The swap of indexes in a searching process: which build a snapshot may use, and when a newly
published one takes the place of the one before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from app.db.queries import index_builds
from app.errors import IndexUnreadable
from app.index.file_store import IndexFiles, ReadIndexFile
from app.index.nominees import NominatingIndex
from app.search.retrieval import Reason, RetrievalRequest
from app.types import Build

MAX_BLOCKING_OPEN = 32 << 20
"""Bytes; a larger new index is opened in the background while the previous build answers."""


@dataclass(frozen=True, slots=True)
class OpenBuild:
    """A build that this snapshot may use, with its index in memory."""

    build: Build
    index: NominatingIndex


def open_build(request: RetrievalRequest, files: IndexFiles) -> OpenBuild | Reason:
    """The newest build this snapshot may use, or the reason why there is none."""
    usable = index_builds.usable(request.connection, request.model.id)
    if not usable:
        return Reason("no_build", "no index has been built yet")
    newest, *older = usable
    index = files.opened(newest)
    if index is None and (newest.size > MAX_BLOCKING_OPEN or files.opens_elsewhere(newest)):
        for build in older:
            if (previous := files.opened(build)) is not None:
                files.open_soon(newest, _read_on_new_connection(request.connection))
                return OpenBuild(build, previous)
    try:
        index = index or files.open(newest, _read_in_snapshot(request.connection))
    except IndexUnreadable as exc:
        return Reason("file", f"build {newest.id}: {exc}")
    if (index.dim, index.rows) != (request.model.dim, newest.rows):
        mismatch = f"index file {newest.sha256}.faiss belongs to another build"
        return Reason("file", f"build {newest.id}: {mismatch}")
    return OpenBuild(newest, index)


def _read_in_snapshot(connection: Connection) -> ReadIndexFile:
    """Reads a build's file from the database, in the snapshot of the search."""
    return lambda build: index_builds.read_file(connection, build.id, build.part)


def _read_on_new_connection(connection: Connection) -> ReadIndexFile:
    """Reads a build's file on a new connection, because the connection of the search may be closed
    before the file is read."""
    engine = connection.engine

    def read(build: Build) -> Iterator[bytes]:
        with engine.connect() as separate:
            yield from index_builds.read_file(separate, build.id, build.part)

    return read
