"""Builds after a crash: those published, their files, and the next one."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import psycopg

from app.bootstrap import App
from app.errors import BuildRunning

RECOVERY_S = 300
"""Seconds within which searches must work again after the server has restarted."""


def published(sql: psycopg.Connection) -> list[tuple[int, str]]:
    """Ids and files of the published builds, oldest first."""
    return sql.execute(
        "SELECT id, sha256 FROM index_build WHERE state = 'published' ORDER BY id"
    ).fetchall()


def rebuild(app: App) -> int:
    """Build as soon as the server has noticed that the previous builder is gone."""
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            build = app.indexer.rebuild()
        except BuildRunning:
            assert time.monotonic() < deadline, "the lock of a builder that died is still held"
            time.sleep(0.02)
        else:
            assert build.state == "published"
            return build.id


def assert_whole(sql: psycopg.Connection, folder: Path) -> None:
    """Each published build has its file, and each file with a final name is complete."""
    names = {path.stem for path in folder.glob("*.faiss")}
    assert {sha256 for _, sha256 in published(sql)} <= names
    for path in folder.glob("*.faiss"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def assert_clean(sql: psycopg.Connection, folder: Path) -> None:
    """The folder holds the files of the published builds and nothing else."""
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted({f"{sha256}.faiss" for _, sha256 in published(sql)})
    stored = sql.execute("SELECT DISTINCT build_id FROM index_chunk ORDER BY 1").fetchall()
    assert [row[0] for row in stored] == [build for build, _ in published(sql)]
    assert sql.execute("SELECT count(*) FROM index_build WHERE state = 'building'").fetchone() == (
        0,
    )
