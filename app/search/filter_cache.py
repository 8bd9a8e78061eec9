"""AllowLists: the pictures that pass the filters people ask for again and again, kept in memory.

A list is a saving and nothing more: it can be dropped at any time, and each search learns from
PostgreSQL whether it may still be used and what changed since it was read.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from app.db.queries import filter_snapshot
from app.db.queries.filter_snapshot import FilterIdList
from app.db.queries.nearest import FilterClause
from app.errors import LookalikeError
from app.index.faiss_index import IdSelector

MAX_BYTES = 64 << 20
"""Memory of all lists; a bitmap takes a byte for eight pictures."""

MAX_FILTERS = 1000
READ_S = 2.0
"""A list that takes longer to read is given up."""

USEFUL_S = 5.0
REST_S = 60.0
"""Where a list cannot be had, or was of no use so soon, none is read for a while."""

NO_IDS = np.empty(0, np.int64)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CachedFilter:
    """The pictures that pass a filter, as an index takes them, and how many they are.

    `snapshot` says as of when (without its ids); `near` is false once those that pass were seen to
    lie far from a query.
    """

    selector: IdSelector
    pictures: int
    snapshot: FilterIdList
    near: bool = True


@dataclass(slots=True)
class _CachedList:
    """What is known of a filter; monotonic seconds."""

    listed: CachedFilter | None = None
    read_at: float = -inf
    not_before: float = -inf

    @property
    def nbytes(self) -> int:
        return self.listed.selector.nbytes if self.listed else 0


class FilterCache:
    """Lists by filter, those asked for last. Safe to use from several threads."""

    def __init__(self, engine: Engine, most_bytes: int = MAX_BYTES) -> None:
        self._engine = engine
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, _CachedList] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Memory that the lists take."""
        return self._bytes

    def __len__(self) -> int:
        """How many filters are known."""
        return len(self._kept)

    def get(self, filter_: FilterClause) -> CachedFilter | None:
        """The list of a filter that was asked for before; None the first time, and where none can
        be had.

        A list takes as long to read as a search without one.
        """
        key = _key(filter_)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                self._keep(key, _CachedList())
                return None
            self._kept.move_to_end(key)
            if kept.listed is not None or time.monotonic() < kept.not_before:
                return kept.listed
        found = self._read(filter_)
        now = time.monotonic()
        with self._lock:
            self._keep(key, _CachedList(found, now, now + REST_S if found is None else -inf))
        return found

    def forget(self, filter_: FilterClause) -> None:
        """Drop a list that may not be used any more; a search to come reads it anew."""
        key, now = _key(filter_), time.monotonic()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept.listed is not None:
                soon = now - kept.read_at < USEFUL_S
                self._keep(key, _CachedList(None, kept.read_at, now + REST_S if soon else -inf))

    def _read(self, filter_: FilterClause) -> CachedFilter | None:
        try:
            with self._engine.connect() as connection:
                limit = text("SELECT set_config('statement_timeout', :ms, true)")
                connection.execute(limit, {"ms": str(int(READ_S * 1000))})
                listed = filter_snapshot.read(connection, filter_)
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.debug("the pictures that pass could not be read: %s", exc)
            return None  # the search without a list says what is wrong
        if listed is None:
            return None
        selector = IdSelector(listed.ids)
        return CachedFilter(selector, len(listed.ids), replace(listed, ids=NO_IDS))

    def _keep(self, key: bytes, kept: _CachedList) -> None:
        before = self._kept.get(key)
        self._bytes += kept.nbytes - (before.nbytes if before else 0)
        self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_FILTERS or (
            self._bytes > self._most_bytes and len(self._kept) > 1
        ):
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _key(filter_: FilterClause) -> bytes:
    """Short, whatever a filter names: a set of skus may be long."""
    said = repr((filter_.condition, sorted(filter_.values.items())))
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass")).digest()
