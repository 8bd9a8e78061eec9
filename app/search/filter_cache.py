"""FilterCache: LRU cache of the picture ids that pass repeated filters, as FAISS selectors.

An entry may be dropped at any time. Each search learns from PostgreSQL whether the entry is still
usable and what changed since it was read.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.db import timeouts
from app.db.queries import filter_snapshot
from app.db.queries.filter_snapshot import FilterIdList
from app.db.queries.nearest import FilterClause
from app.errors import LookalikeError
from app.index import selected_rows, selected_vectors
from app.index.faiss_index import AnnIndex
from app.index.id_selectors import IdSelector
from app.index.nominees import NominatingIndex
from app.index.selected_rows import SelectedRows
from app.index.selected_vectors import SelectedVectors
from app.search.adaptive_fetch import Skipping
from app.types import Build

MAX_BYTES = 64 << 20
"""Memory of all entries; a bitmap takes one byte for eight pictures."""

MAX_COPY_SHARE = 0.5
"""Largest share of that memory that the copied rows of one filter may take."""

MIN_SEARCHES = 2
"""The search among all that passes before which its rows are copied."""

MAX_FILTERS = 1000

READ_TIMEOUT_S = 60.0
"""Reading the ids of a filter is cancelled after this time."""

WAIT_S = 0.5
"""Seconds from the begin of reading for which a search waits for the ids; then it goes on without
them. A sixth of ten million products takes some ten seconds to read."""

MIN_USE_S = 5.0
"""An entry outdated sooner than this was not worth reading."""

RETRY_PAUSE_S = 60.0
"""Pause before a filter is read again whose ids could not be read or were outdated too soon."""

NO_IDS = np.empty(0, np.int64)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CachedFilter:
    """The pictures that pass a filter, as a FAISS selector, and their number.

    `snapshot` is when they were read, without the ids. `far` notes that a deep search found too few
    lately: the pictures that pass lay far from the query.
    """

    selector: IdSelector
    pictures: int
    snapshot: FilterIdList
    far: Skipping = field(default_factory=Skipping)
    searches: int = 0
    """How often all that passes was searched."""
    vectors_not_before: float = -inf
    """Monotonic seconds before which the vectors are not read again, because that failed."""
    copying: threading.Lock = field(default_factory=threading.Lock)
    """Held by the search that copies the rows; others do without the copy meanwhile."""

    @property
    def nbytes(self) -> int:
        """Memory of the selector, and of the rows that were copied for it."""
        copied = self.selector.copied
        return self.selector.nbytes + (copied.nbytes if copied else 0)


@dataclass(slots=True)
class _Entry:
    """A filter that was asked for, and its pictures once they are read; monotonic seconds."""

    cached: CachedFilter | None = None
    read_at: float = -inf
    not_before: float = -inf
    reading: _Reading | None = None

    @property
    def nbytes(self) -> int:
        return self.cached.nbytes if self.cached else 0


@dataclass(slots=True)
class _Reading:
    """The ids of a filter being read, since a monotonic time (s); `result` is set at the end."""

    since: float
    done: threading.Event = field(default_factory=threading.Event)
    result: CachedFilter | None = None


class FilterCache:
    """Entries by filter; evicts the least recently used. Thread-safe."""

    def __init__(self, engine: Engine, max_bytes: int = MAX_BYTES) -> None:
        self._engine = engine
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        """Held by the one thread that reads ids, which takes a connection of searches."""

    @property
    def nbytes(self) -> int:
        """Memory of the entries."""
        return self._bytes

    def __len__(self) -> int:
        """Number of filters known."""
        return len(self._entries)

    def get(self, filter_clause: FilterClause) -> CachedFilter | None:
        """The pictures that pass a filter, read from its second use on; None at the first use, if
        they cannot be read, and while another thread reads them for longer than WAIT_S.

        Reading them takes as long as a search without them, in a large catalogue much longer.
        """
        key = _key(filter_clause)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._put(key, _Entry())
                return None
            self._entries.move_to_end(key)
            if entry.cached is not None or time.monotonic() < entry.not_before:
                return entry.cached
            reading = entry.reading
            if reading is None:
                if not self._turn.acquire(blocking=False):
                    return None
                reading = entry.reading = _Reading(time.monotonic())
                self._begin(key, filter_clause, reading)
        reading.done.wait(max(0.0, reading.since + WAIT_S - time.monotonic()))
        return reading.result

    def _begin(self, key: bytes, filter_clause: FilterClause, reading: _Reading) -> None:
        """Start the thread that reads the ids of a filter, in its turn."""
        thread = threading.Thread(
            target=self._read_in_turn, args=(key, filter_clause, reading),
            name="filter ids", daemon=True,
        )  # fmt: skip
        try:
            thread.start()
        except RuntimeError:  # too many threads, or the process ends
            self._entries.pop(key)
            self._turn.release()
            reading.done.set()

    def _read_in_turn(self, key: bytes, filter_clause: FilterClause, reading: _Reading) -> None:
        """Read the ids of a filter and keep them; ends the turn."""
        try:
            reading.result = self._read(filter_clause)
        finally:
            now, cached = time.monotonic(), reading.result
            not_before = now + RETRY_PAUSE_S if cached is None else -inf
            with self._lock:
                self._put(key, _Entry(cached, now, not_before))
            self._turn.release()
            reading.done.set()

    def copy_rows(
        self,
        filter_clause: FilterClause,
        cached: CachedFilter,
        index: NominatingIndex,
        build: Build | None = None,
    ) -> None:
        """Copy the rows of an index that pass, from the second search of all of them on: a search
        of the copy takes less than half of the time, and the copy about four times as long. To be
        called before such a search. Not where the copy would take most of the memory, and not of an
        index in parts.

        Of a compressed index the vectors of these rows are then read in a thread, if its `build` is
        given; a search of them takes a sixth of the time, and needs fewer nominees.
        """
        cached.searches += 1
        if not isinstance(index, AnnIndex):
            return
        copied, rows = cached.selector.copied, index.faiss_index
        if cached.searches < MIN_SEARCHES:
            return
        if copied is not None and copied.are_of(rows):
            if build is not None and not isinstance(copied, SelectedVectors):
                self._begin_vectors(_key(filter_clause), cached, index, build)
            return
        if not selected_rows.can_copy(rows):
            return
        if selected_rows.bytes_needed(rows, cached.pictures) > self._max_bytes * MAX_COPY_SHARE:
            return
        if not cached.copying.acquire(blocking=False):
            return
        try:
            self._copy(_key(filter_clause), cached, rows)
        finally:
            cached.copying.release()

    def _copy(self, key: bytes, cached: CachedFilter, rows: Any) -> None:
        self._keep(key, cached, SelectedRows(rows, cached.selector))

    def _begin_vectors(
        self, key: bytes, cached: CachedFilter, index: AnnIndex, build: Build
    ) -> None:
        """Start the thread that reads the vectors of the rows that pass, unless they take too much
        memory, another thread reads, or reading them failed lately."""
        needed = selected_vectors.bytes_needed(cached.pictures, index.dim)
        if index.kind != "rabitq" or needed > self._max_bytes * MAX_COPY_SHARE:
            return
        if time.monotonic() < cached.vectors_not_before or not self._turn.acquire(blocking=False):
            return
        thread = threading.Thread(
            target=self._read_vectors, args=(key, cached, index, build),
            name="filter vectors", daemon=True,
        )  # fmt: skip
        try:
            thread.start()
        except RuntimeError:  # too many threads, or the process ends
            self._turn.release()

    def _read_vectors(
        self, key: bytes, cached: CachedFilter, index: AnnIndex, build: Build
    ) -> None:
        """Read the vectors of the rows that pass and keep them; ends the turn."""
        not_before, cached.vectors_not_before = time.monotonic() + RETRY_PAUSE_S, inf
        try:
            with self._engine.connect() as connection:
                timeouts.set_for_transaction(connection, statement_s=READ_TIMEOUT_S)
                held = filter_snapshot.held_vectors(
                    connection, build, cached.snapshot, cached.selector.ids, index.dim
                )
            if held is not None:
                self._keep(key, cached, SelectedVectors(index.faiss_index, held))
                not_before = -inf
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.debug("the vectors that pass a filter could not be read: %s", exc)
        finally:
            cached.vectors_not_before = not_before
            self._turn.release()

    def _keep(self, key: bytes, cached: CachedFilter, made: SelectedRows | SelectedVectors) -> None:
        with self._lock:
            before = cached.nbytes
            cached.selector.copied = made
            entry = self._entries.get(key)
            if entry is not None and entry.cached is cached:  # else it was dropped meanwhile
                self._bytes += cached.nbytes - before
                self._evict()

    def forget(self, filter_clause: FilterClause) -> None:
        """Drop outdated pictures; a later search reads them again."""
        key, now = _key(filter_clause), time.monotonic()
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.cached is not None:
                too_soon = now - entry.read_at < MIN_USE_S
                not_before = now + RETRY_PAUSE_S if too_soon else -inf
                self._put(key, _Entry(None, entry.read_at, not_before))

    def _read(self, filter_clause: FilterClause) -> CachedFilter | None:
        try:
            with self._engine.connect() as connection:
                timeouts.set_for_transaction(connection, statement_s=READ_TIMEOUT_S)
                id_list = filter_snapshot.read(connection, filter_clause)
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.debug("the pictures that pass a filter could not be read: %s", exc)
            return None  # the search that goes on without them raises the error
        if id_list is None:
            return None
        selector = IdSelector(id_list.ids)
        return CachedFilter(selector, len(id_list.ids), replace(id_list, ids=NO_IDS))

    def _put(self, key: bytes, entry: _Entry) -> None:
        previous = self._entries.get(key)
        self._bytes += entry.nbytes - (previous.nbytes if previous else 0)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._evict()

    def _evict(self) -> None:
        while len(self._entries) > MAX_FILTERS or (
            self._bytes > self._max_bytes and len(self._entries) > 1
        ):
            self._bytes -= self._entries.popitem(last=False)[1].nbytes


def _key(filter_clause: FilterClause) -> bytes:
    """A hash of the filter, whose values (such as many skus) may be long."""
    text = repr((filter_clause.condition, sorted(filter_clause.values.items())))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass")).digest()
