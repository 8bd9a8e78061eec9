"""SQL of pgvector's index of a model's embeddings: whether it is there, taking it away, making it.

Whether it is there is read from PostgreSQL's own catalogue and noted nowhere else. An advisory lock
per model (`locks.hnsw_index`) keeps loads and the creation of the index apart.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.db.locks import HNSW_LOCK_HELD
from app.db.queries import models
from app.types import Model

ROW_BYTES = 750
"""What a row of the graph takes in memory beside its vector: with 512 dimensions, a build in 12 MB
said after 7,231 rows that it had no more room."""

VALID = """EXISTS (
    SELECT FROM pg_index AS i
    WHERE i.indexrelid = to_regclass('embedding_m' || {model} || '_vec_idx')
        AND i.indrelid = to_regclass('embedding_m' || {model}) AND i.indisvalid)"""

ATTACHED = """EXISTS (
    SELECT FROM pg_inherits
    WHERE inhparent = 'embedding'::regclass AND NOT inhdetachpending
        AND inhrelid = to_regclass('embedding_m' || {model}))"""

MISSING = f"""FROM model
WHERE {ATTACHED} AND NOT {VALID} AND NOT {HNSW_LOCK_HELD}""".format(model="model.id")
"""Models without the index, which nobody is about to give them."""


def usable(connection: Connection, model_id: int) -> bool:
    """Whether PostgreSQL can answer from the index: it is there, whole, and no half made one."""
    valid = VALID.format(model=int(model_id))
    return bool(connection.exec_driver_sql(f"SELECT {valid}").scalar_one())


def models_without_index(connection: Connection) -> list[Model]:
    """The models whose index is missing or was left half made, and nobody is about to make."""
    return [Model(*row) for row in connection.exec_driver_sql(f"SELECT {models.COLUMNS} {MISSING}")]


def busy(connection: Connection, model_id: int) -> bool:
    """Whether a load is under way that left the index off, or somebody makes it."""
    held = HNSW_LOCK_HELD.format(model=int(model_id))
    return bool(connection.exec_driver_sql(f"SELECT {held}").scalar_one())


def is_owner(connection: Connection, model_id: int) -> bool:
    """Whether this user may take the index away and make it: who only serves may not."""
    sql = """SELECT pg_has_role(c.relowner, 'USAGE')
            AND has_schema_privilege(c.relnamespace, 'CREATE')
        FROM pg_class AS c WHERE c.oid = to_regclass(:name)"""
    name = f"embedding_m{int(model_id)}"
    return bool(connection.execute(text(sql), {"name": name}).scalar())


def rows_in_memory(connection: Connection, model: Model) -> int:
    """How many embeddings a build holds in memory; it goes on with the rest one by one."""
    sql = "SELECT pg_size_bytes(current_setting('maintenance_work_mem'))"
    memory = int(connection.exec_driver_sql(sql).scalar_one())
    return memory // (2 * model.dim + ROW_BYTES)


def drop(connection: Connection, model_id: int) -> None:
    """Take the index away in this transaction, or raise LockHeld after a tenth of a second.

    Of two loads that begin at the same time the second finds it gone.

    Not concurrently: that waits for whoever reads the table, a backup for hours, and once begun
    there is no way back. Searches that come meanwhile wait behind this one, hence so briefly.
    """
    connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
    connection.execute(text(f"DROP INDEX IF EXISTS embedding_m{int(model_id)}_vec_idx"))


def create(connection: Connection, model: Model) -> None:
    """Make the index as `register_model` does, and nobody waits; outside a transaction.

    It waits for transactions that are older than itself. What an interrupted one left is removed.
    """
    name = f"embedding_m{int(model.id)}"
    connection.execute(text("SET statement_timeout = 0; SET lock_timeout = 0"))
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
            connection.execute(text("RESET statement_timeout; RESET lock_timeout"))
