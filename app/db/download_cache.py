"""DownloadCache: what was downloaded from which URL, in a SQLite file that may be deleted.

It is a cache of one machine, not part of the catalogue: without it, everything is downloaded once
more. Any error of the file therefore only means that nothing is known.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger("lookalike.downloads")

_WAIT_S = 10.0
"""Seconds to wait for another process that writes to the file."""

_CREATE = """
CREATE TABLE IF NOT EXISTS download (
    url BLOB PRIMARY KEY,
    etag TEXT NOT NULL,
    last_modified TEXT NOT NULL,
    sha256 BLOB NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class KnownDownload:
    """The validators that came with a file (ETag and Last-Modified), and its sha256."""

    etag: str
    last_modified: str
    sha256: bytes


class DownloadCache:
    """Files by URL. Safe to use from several threads and processes.

    URLs are stored as hashes, because they may contain secrets.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._connection = self._open()

    def get(self, url: str) -> KnownDownload | None:
        """What is known of a URL."""
        rows = self._run("SELECT etag, last_modified, sha256 FROM download WHERE url = ?", url)
        return KnownDownload(*rows[0]) if rows else None

    def put(self, url: str, known: KnownDownload) -> None:
        """Replace what is known of a URL."""
        self._run(
            "INSERT OR REPLACE INTO download VALUES (?, ?, ?, ?)",
            url, known.etag, known.last_modified, known.sha256,
        )  # fmt: skip

    def forget(self, url: str) -> None:
        """Delete what is known of a URL."""
        self._run("DELETE FROM download WHERE url = ?", url)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection | None:
        """The connection; a file that is no database is replaced, one that cannot be used is not
        used."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self._connect()
            except sqlite3.DatabaseError as exc:
                if isinstance(exc, sqlite3.OperationalError):
                    raise
                self._file.unlink()
                return self._connect()
        except (OSError, sqlite3.Error) as exc:
            self._warn(exc)
            return None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
        )
        try:
            # A crash of the machine may damage the file, which is then replaced.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_CREATE)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _run(self, statement: str, url: str, *values: object) -> list[tuple[str, str, bytes]]:
        key = hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            if self._connection is None:
                return []
            try:
                return self._connection.execute(statement, (key, *values)).fetchall()
            except sqlite3.Error as exc:
                self._warn(exc)
                return []

    def _warn(self, exc: Exception) -> None:
        _log.warning("What was downloaded before is not known: %s: %s.", self._file, exc)
