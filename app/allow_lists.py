"""AllowLists: the pictures that pass the filters people ask for again and again, kept in memory.

A list is a saving and nothing more: it can be dropped at any time, and each search learns from
PostgreSQL whether it may still be used and what changed since it was read.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Hashable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.errors import LookalikeError
from app.store import allow_lists
from app.store.allow_lists import AllowList
from app.store.neighbours import Passing

MOST_BYTES = 64 << 20
"""Memory of all lists; a bitmap takes a byte for eight pictures."""

MOST_FILTERS = 1000

_log = logging.getLogger(__name__)


class AllowLists:
    """Lists by filter, those asked for last. Safe to use from several threads."""

    def __init__(self, engine: Engine, most_bytes: int = MOST_BYTES) -> None:
        self._engine = engine
        self._most_bytes = most_bytes
        self._lists: OrderedDict[Hashable, AllowList | None] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, filter_: Passing) -> AllowList | None:
        """The list of a filter that was asked for before; None the first time.

        A list takes as long to read as a search without one.
        """
        key = _key(filter_)
        with self._lock:
            known = key in self._lists
            found = self._lists.setdefault(key, None)
            self._lists.move_to_end(key)
            self._trim()
        if not known or found is not None:
            return found
        try:
            with self._engine.connect() as connection:
                found = allow_lists.read(connection, filter_)
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.debug("the pictures that pass could not be read: %s", exc)
            return None  # the search without a list says what is wrong
        with self._lock:
            self._lists[key] = found
            self._trim()
        return found

    def forget(self, filter_: Passing) -> None:
        """Drop a list that may not be used any more; the next search reads it anew."""
        with self._lock:
            if _key(filter_) in self._lists:
                self._lists[_key(filter_)] = None

    def _trim(self) -> None:
        sizes = {key: found.only.nbytes for key, found in self._lists.items() if found}
        while len(self._lists) > MOST_FILTERS or (
            sum(sizes.values()) > self._most_bytes and len(self._lists) > 1
        ):
            key, _ = self._lists.popitem(last=False)
            sizes.pop(key, None)


def _key(filter_: Passing) -> Hashable:
    return filter_.condition, repr(sorted(filter_.values.items()))
