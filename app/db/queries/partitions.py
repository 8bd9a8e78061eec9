"""SQL of the partitions of `embedding`, one per model: locking, detaching and dropping them."""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.db import timeouts
from app.db.queries import models
from app.types import Model

ATTACHED = """SELECT inhdetachpending FROM pg_inherits
    WHERE inhparent = 'embedding'::regclass AND inhrelid = to_regclass(:name)"""


def lock_attached(connection: Connection) -> None:
    """Prevent partitions from being detached until this transaction ends.

    It must be the first statement of the transaction: the snapshot is then taken after the lock, so
    every model that it shows has its partition. Otherwise one could be detached between two
    statements.
    """
    connection.execute(text("LOCK TABLE ONLY embedding IN ACCESS SHARE MODE"))


def is_attached_now(connection: Connection, model_id: int) -> bool:
    """Whether the partition of a model is attached now, whatever the transaction's snapshot shows.

    On a replica `lock_attached` does not prevent the primary from detaching it.
    """
    sql = "SELECT pg_partition_root(to_regclass(:name)) = 'embedding'::regclass"
    return connection.execute(text(sql), {"name": _partition(model_id)}).scalar() is True


def detach(connection: Connection, model_id: int) -> None:
    """Detach the partition of a model, or finish doing so; outside a transaction."""
    name = _partition(model_id)
    pending = connection.execute(text(ATTACHED), {"name": name}).scalar()
    if pending is not None:
        mode = "FINALIZE" if pending else "CONCURRENTLY"
        connection.execute(text(f"ALTER TABLE embedding DETACH PARTITION {name} {mode}"))


def is_attached(connection: Connection, model_id: int) -> bool:
    """Whether the partition of a model is attached and not being detached."""
    return connection.execute(text(ATTACHED), {"name": _partition(model_id)}).scalar() is False


def model_being_detached(connection: Connection) -> Model | None:
    """The model whose partition is being detached; PostgreSQL allows one at a time."""
    sql = f"""SELECT {models.COLUMNS} FROM model WHERE EXISTS (
        SELECT FROM pg_inherits WHERE inhparent = 'embedding'::regclass AND inhdetachpending
            AND inhrelid = to_regclass('embedding_m' || model.id))"""
    row = connection.execute(text(sql)).one_or_none()
    return Model(*row) if row else None


def is_owner(connection: Connection) -> bool:
    """Whether this user owns the tables, which detaching a partition requires."""
    sql = """SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class
        WHERE oid IN ('embedding'::regclass, 'picture'::regclass, 'model'::regclass)"""
    return bool(connection.execute(text(sql)).scalar_one())


def foreign_keys(connection: Connection, model_id: int) -> list[tuple[str, str]]:
    """Foreign keys of a detached partition: constraint and referenced table, quoted for SQL."""
    sql = """SELECT quote_ident(conname), confrelid::regclass::text FROM pg_constraint
        WHERE conrelid = to_regclass(:name) AND contype = 'f' ORDER BY conname"""
    rows = connection.execute(text(sql), {"name": _partition(model_id)})
    return [(row[0], row[1]) for row in rows]


def other_lock_holders(connection: Connection, table: str) -> set[str]:
    """Virtual ids of the other transactions that hold a lock on a table."""
    sql = """SELECT virtualtransaction FROM pg_locks
        WHERE relation = to_regclass(:table) AND granted AND pid IS DISTINCT FROM pg_backend_pid()
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    return set(connection.execute(text(sql), {"table": table}).scalars())


def drop_foreign_key(connection: Connection, model_id: int, constraint: str, wait_ms: int) -> None:
    """Drop a foreign key of the detached partition; raises LockHeld after `wait_ms` milliseconds.

    It needs an exclusive lock on the referenced table, so readers of that table block it.
    """
    connection.execute(text(f"LOCK TABLE {_partition(model_id)} IN ACCESS EXCLUSIVE MODE"))
    timeouts.set_for_transaction(connection, lock_s=wait_ms / 1000)
    connection.execute(text(f"ALTER TABLE {_partition(model_id)} DROP CONSTRAINT {constraint}"))


def drop(connection: Connection, model_id: int) -> None:
    """Drop the detached partition of a model, if it exists.

    Drop its foreign keys first: otherwise this locks the referenced tables against readers.
    """
    connection.execute(text(f"DROP TABLE IF EXISTS {_partition(model_id)}"))


def _partition(model_id: int) -> str:
    return f"embedding_m{int(model_id)}"
