"""SQL of pgvector's HNSW index of a model's embeddings: its state, dropping and creating it.

The state is read from PostgreSQL's system catalogue and stored nowhere else. An advisory lock per
model (`locks.hnsw_index`) keeps loads and the creation of the index apart.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.db import timeouts
from app.db.locks import HNSW_LOCK_HELD
from app.db.queries import models
from app.types import Model

ROW_BYTES = 750
"""Memory of a row of the graph in addition to its vector. Measured: with 512 dimensions, a build
with 12 MB of maintenance_work_mem reported after 7,231 rows that the graph no longer fits."""

VALID = """EXISTS (
    SELECT FROM pg_index AS i
    WHERE i.indexrelid = to_regclass('embedding_m' || {model} || '_vec_idx')
        AND i.indrelid = to_regclass('embedding_m' || {model}) AND i.indisvalid)"""

ATTACHED = """EXISTS (
    SELECT FROM pg_inherits
    WHERE inhparent = 'embedding'::regclass AND NOT inhdetachpending
        AND inhrelid = to_regclass('embedding_m' || {model}))"""

FROM_MODELS_WITHOUT_INDEX = f"""FROM model
WHERE {ATTACHED} AND NOT {VALID} AND NOT {HNSW_LOCK_HELD}""".format(model="model.id")
"""The FROM and WHERE of queries on the models without a valid index that no load or build is
working on."""


def is_usable(connection: Connection, model_id: int) -> bool:
    """Whether PostgreSQL can search with the index: it exists and is valid."""
    valid = VALID.format(model=int(model_id))
    return bool(connection.exec_driver_sql(f"SELECT {valid}").scalar_one())


def models_without_index(connection: Connection) -> list[Model]:
    """Models whose index is missing or invalid, and that no load or build is working on."""
    sql = f"SELECT {models.COLUMNS} {FROM_MODELS_WITHOUT_INDEX}"
    return [Model(*row) for row in connection.exec_driver_sql(sql)]


def busy(connection: Connection, model_id: int) -> bool:
    """Whether a bulk load that dropped the index is running, or the index is being created."""
    held = HNSW_LOCK_HELD.format(model=int(model_id))
    return bool(connection.exec_driver_sql(f"SELECT {held}").scalar_one())


def is_owner(connection: Connection, model_id: int) -> bool:
    """Whether this user may drop and create the index; the role that only serves may not."""
    sql = """SELECT pg_has_role(c.relowner, 'USAGE')
            AND has_schema_privilege(c.relnamespace, 'CREATE')
        FROM pg_class AS c WHERE c.oid = to_regclass(:name)"""
    name = f"embedding_m{int(model_id)}"
    return bool(connection.execute(text(sql), {"name": name}).scalar())


def rows_in_memory(connection: Connection, model: Model) -> int:
    """How many embeddings an index build keeps in memory; it inserts the rest one by one."""
    sql = "SELECT pg_size_bytes(current_setting('maintenance_work_mem'))"
    memory = int(connection.exec_driver_sql(sql).scalar_one())
    return memory // (2 * model.dim + ROW_BYTES)


def drop(connection: Connection, model_id: int) -> None:
    """Drop the index, if it exists, in this transaction; raises LockHeld after 100 ms.

    Not CONCURRENTLY: that waits for every reader of the table, a backup for hours, and cannot be
    undone once it has begun. New searches queue behind this lock, so it must not wait long.
    """
    timeouts.set_for_transaction(connection, lock_s=0.1)
    connection.execute(text(f"DROP INDEX IF EXISTS embedding_m{int(model_id)}_vec_idx"))


def create(connection: Connection, model: Model) -> None:
    """Create the index as `register_model` does, without blocking others; outside a transaction.

    Waits for older transactions. Removes the invalid index of an interrupted run first.
    """
    name = f"embedding_m{int(model.id)}"
    timeouts.set_for_session(connection, statement_s=0, lock_s=0)
    try:
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_vec_idx"))
        connection.execute(
            text(
                f"CREATE INDEX CONCURRENTLY {name}_vec_idx ON {name}"
                f" USING hnsw ((vec::halfvec({int(model.dim)})) halfvec_cosine_ops)"
            )
        )
    finally:
        if not connection.invalidated:
            timeouts.reset(connection)
