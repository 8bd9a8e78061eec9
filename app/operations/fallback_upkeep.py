"""Keeps pgvector's indexes built and measured, in a background thread of the worker."""

from __future__ import annotations

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.catalog import fallback_index
from app.concurrency import BackgroundLoop
from app.errors import LookalikeError

_log = logging.getLogger("lookalike.fallback")


class FallbackUpkeep(BackgroundLoop):
    """Maintains pgvector's indexes every `every_s` seconds, in a thread of its own.

    Not in the worker's thread: building an index waits for open transactions, a backup for hours.
    Where this user does not own the tables it does nothing. When it is closed, an index that is
    being built is left to the next process that looks for it.
    """

    def __init__(self, engine: Engine, every_s: float) -> None:
        super().__init__(
            self._maintain,
            every_s,
            name="fallback",
            log=_log,
            failure="pgvector's index was not made",
            expected=(LookalikeError, SQLAlchemyError),
        )
        self._engine = engine

    def _maintain(self) -> str:
        fallback_index.maintain(self._engine)
        return ""
