"""SQL with which the one writer of the catalogue begins: its turn, and how its session plans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from app.db.pipeline import Pipeline

LOCK = 7_305_804_003
"""Key of the advisory lock that writers of the catalogue take in turn."""

# Searches have their statements planned anew each time. Foreign keys are checked by a statement a
# row, and a plan made for certain values copies these, a batch's pictures too. All that a writer
# looks up it looks up by a key, and a plan that is kept must not read a whole table because that
# was small once.
BEGIN = """
SELECT pg_advisory_xact_lock(%(key)s) AS turn,
    set_config('plan_cache_mode', 'force_generic_plan', true) AS plans,
    set_config('enable_seqscan', 'off', true) AS scans"""


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """What a writer begins in: what its turn waited for is seen after it, whatever the server's
    default is."""
    with engine.connect() as connection:
        committed = connection.execution_options(isolation_level="READ COMMITTED")
        with committed.begin():
            yield committed


def begin(trip: Pipeline) -> None:
    """Wait for the turn; it ends with the transaction, as do the settings.

    Statements of the same trip see what those committed who had their turn before.
    """
    trip.send(BEGIN, {"key": LOCK})
