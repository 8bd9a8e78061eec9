"""SQL of `index_chunk`: the file of a build, in pieces, for hosts that do not have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, text

CHUNK_BYTES = 4 << 20
"""Small enough that neither side holds much of a file, large enough to be few statements."""


def save(connection: Connection, build_id: int, file: Path) -> None:
    """Store a build's file; in the transaction that publishes it, so both are seen together."""
    sql = text("INSERT INTO index_chunk (build_id, number, data) VALUES (:build, :number, :data)")
    with file.open("rb") as source:
        for number, data in enumerate(iter(lambda: source.read(CHUNK_BYTES), b"")):
            connection.execute(sql, {"build": build_id, "number": number, "data": data})


def read(connection: Connection, build_id: int) -> Iterator[bytes]:
    """The pieces of a build's file in order; none where it was not stored."""
    sql = text("SELECT data FROM index_chunk WHERE build_id = :build AND number = :number")
    number = 0
    while True:
        data = connection.execute(sql, {"build": build_id, "number": number}).scalar()
        if data is None:
            return
        yield bytes(data)
        number += 1


def drop(connection: Connection, build_id: int) -> None:
    """Forget the file of one build."""
    connection.execute(text("DELETE FROM index_chunk WHERE build_id = :id"), {"id": build_id})


def drop_retired(connection: Connection) -> None:
    """Forget the files of builds that are not published any more."""
    connection.execute(
        text(
            "DELETE FROM index_chunk AS c USING index_build AS b"
            " WHERE b.id = c.build_id AND b.state <> 'published'"
        )
    )
