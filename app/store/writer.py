"""SQL with which the one writer of the catalogue begins: its turn, and how its session plans."""

from __future__ import annotations

from sqlalchemy import Connection, text

LOCK = 7_305_804_003
"""Key of the advisory lock that writers of the catalogue take in turn."""

# Searches have their statements planned anew each time, and foreign keys are checked by a statement
# a row: planned anew, checking takes longer than writing. All that a writer looks up it looks up by
# a key, and a plan that is kept must not read a whole table because that was small once.
BEGIN = """
SELECT pg_advisory_xact_lock(:key), set_config('plan_cache_mode', 'auto', true),
    set_config('enable_seqscan', 'off', true)"""


def begin(connection: Connection) -> None:
    """Wait for the turn; it ends with the transaction, as do the settings."""
    connection.execute(text(BEGIN), {"key": LOCK})
