"""SQL of the partitions of `embedding`, one for each model: kept in place, taken out, deleted."""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.db.queries import models
from app.types import Model

ATTACHED = """SELECT inhdetachpending FROM pg_inherits
    WHERE inhparent = 'embedding'::regclass AND inhrelid = to_regclass(:name)"""


def lock_attached(connection: Connection) -> None:
    """Keep the partitions of all models in place until this transaction ends.

    To be its first statement: it sees the database as it is once this has been granted, so every
    model it can see has its partition. Else one could be taken out between two of its statements.
    """
    connection.execute(text("LOCK TABLE ONLY embedding IN ACCESS SHARE MODE"))


def is_attached_now(connection: Connection, model_id: int) -> bool:
    """Whether a model has its partition at this moment, whatever the transaction's snapshot says.

    On a replica `hold` keeps nobody from detaching it on the primary.
    """
    sql = "SELECT pg_partition_root(to_regclass(:name)) = 'embedding'::regclass"
    return connection.execute(text(sql), {"name": _partition(model_id)}).scalar() is True


def detach(connection: Connection, model_id: int) -> None:
    """Take the partition of a model out of `embedding`, or finish doing so where that was
    interrupted; outside a transaction."""
    name = _partition(model_id)
    pending = connection.execute(text(ATTACHED), {"name": name}).scalar()
    if pending is not None:
        how = "FINALIZE" if pending else "CONCURRENTLY"
        connection.execute(text(f"ALTER TABLE embedding DETACH PARTITION {name} {how}"))


def is_attached(connection: Connection, model_id: int) -> bool:
    """Whether a model has its partition, and it is not being taken out."""
    return connection.execute(text(ATTACHED), {"name": _partition(model_id)}).scalar() is False


def model_being_detached(connection: Connection) -> Model | None:
    """The model whose partition was not wholly taken out; PostgreSQL takes out one at a time."""
    sql = f"""SELECT {models.COLUMNS} FROM model WHERE EXISTS (
        SELECT FROM pg_inherits WHERE inhparent = 'embedding'::regclass AND inhdetachpending
            AND inhrelid = to_regclass('embedding_m' || model.id))"""
    row = connection.execute(text(sql)).one_or_none()
    return Model(*row) if row else None


def is_owner(connection: Connection) -> bool:
    """Whether this user owns the tables, as whoever takes a partition out must."""
    sql = """SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class
        WHERE oid IN ('embedding'::regclass, 'picture'::regclass, 'model'::regclass)"""
    return bool(connection.execute(text(sql)).scalar_one())


def foreign_keys(connection: Connection, model_id: int) -> list[tuple[str, str]]:
    """The constraints by which the detached partition of a model refers to other tables, and these
    tables; as SQL names them."""
    sql = """SELECT quote_ident(conname), confrelid::regclass::text FROM pg_constraint
        WHERE conrelid = to_regclass(:name) AND contype = 'f' ORDER BY conname"""
    rows = connection.execute(text(sql), {"name": _partition(model_id)})
    return [(row[0], row[1]) for row in rows]


def other_lock_holders(connection: Connection, table: str) -> set[str]:
    """The transactions that use a table now."""
    sql = """SELECT virtualtransaction FROM pg_locks
        WHERE relation = to_regclass(:table) AND granted AND pid IS DISTINCT FROM pg_backend_pid()
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    return set(connection.execute(text(sql), {"table": table}).scalars())


def drop_foreign_key(connection: Connection, model_id: int, constraint: str, wait_ms: int) -> None:
    """Drop one of them, for which nobody may be reading the other table; waits `wait_ms` at most
    for that, and then raises LockHeld."""
    connection.execute(text(f"LOCK TABLE {_partition(model_id)} IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text(f"SET LOCAL lock_timeout = {int(wait_ms)}"))
    connection.execute(text(f"ALTER TABLE {_partition(model_id)} DROP CONSTRAINT {constraint}"))


def drop(connection: Connection, model_id: int) -> None:
    """Delete the detached partition of a model, if it is still there. One that refers to other
    tables takes these away from their readers."""
    connection.execute(text(f"DROP TABLE IF EXISTS {_partition(model_id)}"))


def _partition(model_id: int) -> str:
    return f"embedding_m{int(model_id)}"
