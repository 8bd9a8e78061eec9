"""Builds HNSW indexes that interrupted loads left missing, in a background thread."""

from __future__ import annotations

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.catalog import bulk_load
from app.concurrency import BackgroundLoop
from app.errors import LookalikeError

_log = logging.getLogger("lookalike.mender")


class HnswRepairLoop(BackgroundLoop):
    """Builds missing HNSW indexes every `every_s` seconds, in a thread of its own.

    Not in the worker's thread: building an index waits for open transactions, a backup for hours.
    Where this user does not own the tables it does nothing. When it is closed, an index that is
    being built is left to the next process that looks for missing ones.
    """

    def __init__(self, engine: Engine, every_s: float) -> None:
        super().__init__(
            self._build_missing,
            every_s,
            name="mender",
            log=_log,
            failure="pgvector's index was not made",
            expected=(LookalikeError, SQLAlchemyError),
        )
        self._engine = engine

    def _build_missing(self) -> str:
        bulk_load.build_missing(self._engine)
        return ""
