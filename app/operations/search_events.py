"""SearchEvents: records searches and what people did with their results, and forgets both in time.

Searches are written in the background, so that no answer waits; events are stored when they are
acknowledged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.concurrency import BackgroundLoop, BackgroundQueue, RepeatedWarning
from app.db.engine import check_schema
from app.db.queries import query_photos, search_events
from app.db.queries.search_events import EventRow, LabelledRow, RequestRow
from app.errors import LookalikeError

DAYS_AHEAD = 2
"""Partitions are created for today and so many days ahead."""

MAX_QUEUED = 10_000
"""Searches that wait to be recorded; of more, the newest are kept."""

WRITE_INTERVAL_S = 1.0
"""The queued searches are written together once per interval."""

CLEANUP_INTERVAL_S = 3600.0

__all__ = [
    "CleanupReport",
    "EventCleanupLoop",
    "EventRow",
    "LabelledRow",
    "RequestRow",
    "SearchEvents",
]

_log = logging.getLogger("lookalike.events")


@dataclass(frozen=True, slots=True)
class CleanupReport:
    """Partitions (days of searches or of events) added and dropped, and photos deleted."""

    added: int
    dropped: int
    photos: int


class SearchEvents:
    """Searches, events and kept photos of one database, which stay for `days`. Thread-safe."""

    def __init__(self, engine: Engine, days: float) -> None:
        self._engine = engine
        self._days = days
        self._queue = BackgroundQueue[RequestRow](
            self._write, most=MAX_QUEUED, interval_s=WRITE_INTERVAL_S, name="searches"
        )
        self._warning = RepeatedWarning(_log)

    @property
    def enabled(self) -> bool:
        """Whether anything is recorded."""
        return self._days > 0

    def record(self, search: RequestRow) -> None:
        """Queue a search to be recorded; never blocks."""
        if self.enabled:
            self._queue.put(search)

    def store(self, events: Sequence[EventRow]) -> None:
        """Store events; they are kept when this returns."""
        self._in_partitions(lambda connection: search_events.insert_events(connection, events))

    def keep_photo(self, id_: str, preview: bytes, most: int) -> None:
        """Keep the preview (JPEG) of a photo, unless `most` are kept already."""
        with self._engine.begin() as connection:
            search_events.keep_photo(connection, id_, preview, most)

    def labelled(self) -> list[LabelledRow]:
        """Searches whose queries were kept, with what was clicked or bought in their results."""
        with self._engine.connect() as connection:
            check_schema(connection)
            return search_events.labelled(connection)

    def clean_up(self) -> CleanupReport:
        """Create partitions ahead, and delete what is older than `days`, and photos to search with
        that have expired.

        Raises LockHeld if a report reads the events for longer than two seconds.
        """
        with self._engine.begin() as connection:
            check_schema(connection)
            added = search_events.add_partitions(connection, DAYS_AHEAD) if self.enabled else 0
            expired = query_photos.delete_expired(connection)
        # A transaction of its own: dropping waits for readers, and creating must not.
        with self._engine.begin() as connection:
            dropped = search_events.drop_partitions(connection, self._days)
        with self._engine.begin() as connection:
            photos = search_events.delete_photos(connection, self._days)
        return CleanupReport(added, dropped, photos + expired)

    def close(self) -> None:
        """Write the queued searches and stop the thread."""
        self._queue.close()

    def _write(self, rows: list[RequestRow]) -> None:
        try:
            self._in_partitions(lambda connection: search_events.insert_requests(connection, rows))
            self._warning.clear()
        except (LookalikeError, SQLAlchemyError) as exc:
            self._warning.warn(f"searches are not recorded: {exc}")

    def _in_partitions(self, write: Callable[[Connection], None]) -> None:
        """Write rows of today; its partitions are created where they are missing."""
        try:
            with self._engine.begin() as connection:
                write(connection)
        except IntegrityError as exc:
            if not isinstance(exc.orig, psycopg.errors.CheckViolation):
                raise
            with self._engine.begin() as connection:
                search_events.add_partitions(connection, DAYS_AHEAD)
            with self._engine.begin() as connection:
                write(connection)
            # Where no worker runs, what is old is deleted here, once in a few days.
            with suppress(LookalikeError, SQLAlchemyError):
                self.clean_up()


class EventCleanupLoop(BackgroundLoop):
    """Cleans up once an hour, in a thread of its own: dropping a partition waits for readers."""

    def __init__(self, events: SearchEvents, every_s: float = CLEANUP_INTERVAL_S) -> None:
        super().__init__(
            self._clean_up, every_s, name="events", log=_log,
            failure="searches and events are not cleaned up for now",
            expected=(LookalikeError, SQLAlchemyError),
        )  # fmt: skip
        self._events = events

    def _clean_up(self) -> str:
        self._events.clean_up()
        return ""
