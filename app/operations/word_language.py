"""Changes the language by which the catalogue's words are stemmed, while searches and writes go on.

Words of both languages are kept until all products have them in the new one; then one row says
which language searches read. An interrupted change goes on when it is started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine

from app.db import locks, timeouts
from app.db.engine import check_schema
from app.db.locks import LockKey
from app.db.queries import word_language
from app.errors import BadInput, LockHeld
from app.types import ProgressCallback

DEFAULT = "english"

BATCH = 2000
"""Products per transaction."""

MAX_TRIES = 40
"""Attempts to get the lock that waits for writers."""

LOCK_S = 2.0
RETRY_PAUSE_S = 3.0


def current(engine: Engine) -> str:
    """The text search configuration that searches read. Raises SchemaMismatch."""
    with engine.connect() as connection:
        check_schema(connection)
        return word_language.active(connection) or DEFAULT


def change(engine: Engine, language: str, notify: ProgressCallback = lambda message: None) -> bool:
    """Stem words by this text search configuration; whether that is a change.

    Raises BadInput for one that the server lacks, and LockHeld if another change is running or
    writers held their locks in MAX_TRIES attempts.
    """
    before = current(engine)
    with engine.connect() as connection:
        available = word_language.available(connection)
    if language not in available:
        raise BadInput(f"The server has no language {language!r}; it has {', '.join(available)}.")
    with locks.session(engine, LockKey.WORD_LANGUAGE) as locked:
        if not locked:
            raise LockHeld("Another process is changing the language. Wait until it has finished.")
        if before != language:
            _drop_others(engine)  # rows of an earlier language may be old
            _with_retries(engine, lambda connection: word_language.add(connection, language))
            _fill(engine, language, notify)
            with locks.transaction(engine) as connection:
                word_language.activate(connection, language)
        _with_retries(engine, word_language.keep_active_only)
        _drop_others(engine)
    return before != language


def change_if_empty(engine: Engine, language: str) -> bool:
    """The same if the catalogue has no product yet; whether the language is this one now."""
    if current(engine) == language:
        return True
    with engine.connect() as connection:
        filled = word_language.has_products(connection)
    return not filled and change(engine, language)


def _drop_others(engine: Engine) -> None:
    """Delete the rows of languages that are no longer kept."""
    while True:
        with locks.transaction(engine) as connection:
            if not word_language.drop_others(connection, BATCH):
                return


def _fill(engine: Engine, language: str, notify: ProgressCallback) -> None:
    after: int | None = 0
    batches = 0
    while after is not None:
        with locks.transaction(engine) as connection:
            after = word_language.fill(connection, language, after, BATCH)
        batches += 1
        notify(f"the words of about {batches * BATCH:,} products")


def _with_retries(engine: Engine, step: Callable[[Connection], None]) -> None:
    """Run a step that waits for all writers; it waits briefly, because new writers queue behind
    it, and tries again."""
    for left in reversed(range(MAX_TRIES)):
        try:
            with locks.transaction(engine) as connection:
                timeouts.set_for_transaction(connection, lock_s=LOCK_S)
                step(connection)
            return
        except LockHeld:
            if not left:
                raise
            time.sleep(RETRY_PAUSE_S)
