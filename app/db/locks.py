"""All PostgreSQL advisory locks: their keys, how they are taken, and the write transaction.

Keys are part of the contract with other versions, which may run on the same database at the same
time: a key is never changed or used again.

Order. Only `CATALOG_WRITE`, `MODEL_REGISTRATION` and `VERDICTS` are waited for; the others are
tried and refused when taken, so they cannot be part of a deadlock. `CATALOG_WRITE` is taken after
`MIGRATION`, `MODEL_CHANGE` or `PGVECTOR_INDEX`, and `MODEL_REGISTRATION` after `CATALOG_WRITE`.
`INDEX_BUILD` and `VERDICTS` are taken alone, `INGEST_RUN` and `INGEST_WRITER` before
`CATALOG_WRITE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum

from sqlalchemy import Connection, Engine, text

from app.db.pipeline import Deferred, Pipeline
from app.errors import LookalikeError


class LockKey(IntEnum):
    """Keys of the advisory locks."""

    MIGRATION = 7_305_804_001
    """`lookalike migrate`, for as long as it runs. Session, exclusive, tried in a loop."""

    INDEX_BUILD = 7_305_804_002
    """The index builder, and the check of index files. Session, exclusive, tried."""

    CATALOG_WRITE = 7_305_804_003
    """Every writer of products, pictures or embeddings. Transaction, exclusive, waited for."""

    MODEL_REGISTRATION = 7_305_804_004
    """The SQL function `register_model`, which takes it itself. Transaction, exclusive, waited
    for."""

    VERDICTS = 7_305_804_005
    """Everything that records a verdict, since two verdicts at the same time could contradict each
    other. Transaction, exclusive, waited for."""

    MODEL_CHANGE = 7_305_804_006
    """Adding, activating and dropping models, tried. A drop takes several transactions and holds
    it in its session, the others in their transaction. Exclusive."""

    WORD_LANGUAGE = 7_305_804_009
    """Changing the language of words. Session, exclusive, tried."""

    PGVECTOR_INDEX = 730_580_401
    """First of two 32-bit keys; the second is the id of a model. Held while pgvector's indexes of
    the model are changed. Bulk loads of earlier versions hold it shared. Session, exclusive,
    tried."""

    INGEST_RUN = 730_580_402
    """First of two 32-bit keys; the second is the id of a run, modulo 2^31. A run holds it while it
    is alive, and an undo that of the run it takes back. Session, exclusive, tried."""

    INGEST_WRITER = 730_580_403
    """First of two 32-bit keys; the second is the id of a run, modulo 2^31. The process in charge
    of a run holds it too, and an undo does not: others write for the run only while it is held.
    Session, exclusive, tried."""


PGVECTOR_LOCK_HELD = f"""EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND classid = {LockKey.PGVECTOR_INDEX.value} AND objid = {{model}}
        AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
"""SQL condition: a process is changing pgvector's indexes of `{model}`, which is an expression for
the model's id."""

# The settings: a general session (engine.GENERAL_SESSION) plans every statement for its values.
# Foreign keys are checked by one statement per row, and a plan for certain values copies these,
# including the pictures of a batch. A writer looks up all rows by key, and a cached plan must not
# read a whole table because the table was small when the plan was made.
BEGIN_WRITE = """
SELECT pg_advisory_xact_lock(%(key)s) AS turn,
    set_config('plan_cache_mode', 'force_generic_plan', true) AS plans,
    set_config('enable_seqscan', 'off', true) AS scans"""


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A READ COMMITTED transaction, for work under a transaction lock.

    Statements after the lock see what was committed while the lock was waited for, whatever the
    default isolation level of the server is.
    """
    with engine.connect() as connection:
        committed = connection.execution_options(isolation_level="READ COMMITTED")
        with committed.begin():
            yield committed


def begin_write(pipeline: Pipeline) -> None:
    """Wait for the write lock and set the planner up for writing, both until the transaction ends.

    Later statements of the same pipeline see what earlier writers committed.
    """
    pipeline.send(BEGIN_WRITE, {"key": LockKey.CATALOG_WRITE.value})


def acquire(connection: Connection, key: LockKey) -> None:
    """Wait for a lock that ends with the transaction. Raises LockHeld, DatabaseUnavailable."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key.value})


def try_acquire(connection: Connection, key: LockKey) -> bool:
    """Take a lock that ends with the transaction; False if another session holds it."""
    sql = text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool(connection.execute(sql, {"key": key.value}).scalar_one())


def try_acquire_session(connection: Connection, key: LockKey) -> bool:
    """Take a lock that the session holds until `release_session`; False if another holds it."""
    sql = text("SELECT pg_try_advisory_lock(:key)")
    return bool(connection.execute(sql, {"key": key.value}).scalar_one())


def release_session(connection: Connection, key: LockKey) -> None:
    """Give a lock of the session back."""
    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key.value})


@contextmanager
def session(engine: Engine, key: LockKey) -> Iterator[bool]:
    """Hold a lock for the block on a connection of its own; False if another session holds it."""
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        taken = try_acquire_session(connection, key)
        try:
            yield taken
        finally:
            if taken:
                _release(connection, "SELECT pg_advisory_unlock(:key)", {"key": key.value})


@contextmanager
def pgvector_index(connection: Connection, model_id: int) -> Iterator[bool]:
    """Hold the lock of a model's pgvector indexes for the block; False if another session holds it.

    The connection must be in autocommit mode.
    """
    values = {"key": LockKey.PGVECTOR_INDEX.value, "model": model_id}
    acquire_sql = text("SELECT pg_try_advisory_lock(:key, :model)")
    taken = bool(connection.execute(acquire_sql, values).scalar_one())
    try:
        yield taken
    finally:
        if taken:
            _release(connection, "SELECT pg_advisory_unlock(:key, :model)", values)


@contextmanager
def ingest_run(connection: Connection, run_id: int) -> Iterator[bool]:
    """Hold the lock of a run for the block; False if another session holds it.

    The connection must be in autocommit mode.
    """
    with _run_lock(connection, LockKey.INGEST_RUN, run_id) as taken:
        yield taken


@contextmanager
def run_writer(connection: Connection, run_id: int) -> Iterator[bool]:
    """Let others write for a run during the block; like `ingest_run`."""
    with _run_lock(connection, LockKey.INGEST_WRITER, run_id) as taken:
        yield taken


@contextmanager
def _run_lock(connection: Connection, key: LockKey, run_id: int) -> Iterator[bool]:
    values = {"key": key.value, "run": run_id % 2**31}
    taken = bool(
        connection.execute(text("SELECT pg_try_advisory_lock(:key, :run)"), values).scalar_one()
    )
    try:
        yield taken
    finally:
        if taken:
            _release(connection, "SELECT pg_advisory_unlock(:key, :run)", values)


def is_run_alive(pipeline: Pipeline, run_id: int) -> Deferred[bool]:
    """Whether the process in charge of a run holds its lock."""
    sql = f"""SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND classid = {LockKey.INGEST_WRITER.value}
            AND objid = %(run)s::bigint::oid AND objsubid = 2
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS alive"""
    rows = pipeline.send(sql, {"run": run_id % 2**31})
    return lambda: bool(rows()[0].alive)


def _release(connection: Connection, sql: str, values: dict[str, int]) -> None:
    """Release at the end of a block: a lost connection has lost the lock, and an error in the block
    must not be hidden by one here."""
    if not connection.invalidated:
        with suppress(LookalikeError):
            connection.execute(text(sql), values)
