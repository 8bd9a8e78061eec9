"""The mender: makes pgvector's index where an interrupted load left it off, beside the worker."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.catalog import bulk_load
from app.errors import LookalikeError

CLOSED_WITHIN_S = 1.0

_log = logging.getLogger("lookalike.mender")


class HnswRepairLoop:
    """Looks again and again, in a thread of its own, until it is closed.

    Not in the worker's thread: making the index waits for transactions that are open, a backup for
    hours. Where this user does not own the tables it does nothing.
    """

    def __init__(self, engine: Engine, every_s: float) -> None:
        self._engine = engine
        self._every_s = every_s
        self._said = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mender", daemon=True)

    def __enter__(self) -> HnswRepairLoop:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Look no more; an index that is being made is left to whoever looks next."""
        self._stop.set()
        self._thread.join(CLOSED_WITHIN_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                bulk_load.finish(self._engine)
                self._said = ""
            except (LookalikeError, SQLAlchemyError) as exc:
                self._say(f"pgvector's index was not made: {' '.join(str(exc).split())}")
            except Exception:
                _log.exception("the mender failed and will try again")
            self._stop.wait(self._every_s)

    def _say(self, trouble: str) -> None:
        """In the log once, however often it is met in a row."""
        if trouble != self._said:
            _log.warning("%s", trouble)
        self._said = trouble
