"""SQL of pgvector's IVFFlat index of a model's embeddings: its state, creating and dropping it.

The index is partial, on a condition that every row fulfils and that names the index. PostgreSQL
uses it only for a statement that repeats the condition, so an exact statement never gets it, nor
does one that has not set `ivfflat.probes`. Each model has two names, so that an index can be built
beside the one in use.

What was measured of an index is its comment, together with the number of its file. An index with
another file, such as that of a restored dump, is not the one that was measured and is not used. No
other state is stored. An advisory lock per model (`locks.pgvector_index`) lets one process at a
time change its indexes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import sql
from sqlalchemy import Connection, Row, text

from app.db import timeouts
from app.db.locks import PGVECTOR_LOCK_HELD
from app.db.queries import models
from app.types import Model

SLOTS = (1, 2)

MIN_ROWS = 2000
"""Fewer embeddings get no index: comparing them all takes about a millisecond."""

MIN_MEMORY = 256 << 20
"""Bytes that a build may use where the server's `maintenance_work_mem` is smaller."""

LISTS_PER_ROOT = 4
"""Lists as a multiple of the square root of the rows, as of an IVF of FAISS. With 1 a search of
20,000 clustered vectors took six times as long for the same recall, and of vectors without clusters
as long (bench/index/fallback.py)."""

ATTACHED = """EXISTS (
    SELECT FROM pg_inherits
    WHERE inhparent = 'embedding'::regclass AND NOT inhdetachpending
        AND inhrelid = to_regclass('embedding_m' || {model}))"""

MEASURED = """EXISTS (
    SELECT FROM generate_series(1, 2) AS slot
    JOIN pg_index AS i
        ON i.indexrelid = to_regclass('embedding_m' || {model} || '_ivf' || slot || '_idx')
    WHERE i.indisvalid AND i.indrelid = to_regclass('embedding_m' || {model})
        AND starts_with(obj_description(i.indexrelid, 'pg_class'),
            '{{"file": ' || pg_relation_filenode(i.indexrelid) || ','))"""

MODELS_WITHOUT_INDEX = f"""
SELECT model.name AS example FROM model
WHERE {ATTACHED} AND NOT {MEASURED} AND NOT {PGVECTOR_LOCK_HELD} AND (
    SELECT count(*) FROM (
        SELECT FROM embedding AS e WHERE e.model_id = model.id LIMIT {MIN_ROWS}) AS few
    ) = {MIN_ROWS}""".format(model="model.id")
"""The names of models that have enough rows for an index, and no measured one."""

# "_vec_idx" is the HNSW index that versions before migration 0016 made.
INDEXES = """
SELECT c.relname AS name, i.indisvalid AS valid, pg_relation_filenode(c.oid) AS file,
    obj_description(c.oid, 'pg_class') AS comment, coalesce((
        SELECT option_value::integer FROM pg_options_to_table(c.reloptions)
        WHERE option_name = 'lists'), 0) AS lists
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(:part)
    AND c.relname IN (:part || '_vec_idx', :part || '_ivf1_idx', :part || '_ivf2_idx')"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of an index when it had been built: `recall_at_10` (0 to 1) of so many
    `queries` with `probes` of its `lists`, over `rows` embeddings."""

    rows: int
    lists: int
    probes: int
    recall_at_10: float
    queries: int


@dataclass(frozen=True, slots=True)
class PgvectorIndex:
    """An index of a partition; `slot` is 0 for the HNSW index of earlier versions, and `figures`
    are None where this very file was not measured."""

    name: str
    slot: int
    valid: bool
    file: int
    lists: int
    figures: Figures | None


@dataclass(frozen=True, slots=True)
class MeasuredIndex(Figures):
    """The index of a model that searches use."""

    slot: int

    @property
    def condition(self) -> str:
        """The condition by which a statement uses this index."""
        return condition(self.slot)


def condition(slot: int) -> str:
    """The SQL condition on `picture_id` that names the index in a slot. All rows fulfil it, since
    ids are positive."""
    return f"picture_id <> -{slot:d}"


def index_name(model_id: int, slot: int) -> str:
    """The name of the index in a slot."""
    return f"{_partition(model_id)}_ivf{slot:d}_idx"


def all_of(connection: Connection, model_id: int) -> list[PgvectorIndex]:
    """The indexes of a model's partition, in any state, those of earlier versions included."""
    rows = connection.execute(text(INDEXES), {"part": _partition(model_id)})
    return [_index(model_id, row) for row in rows]


def measured(connection: Connection, model_id: int) -> MeasuredIndex | None:
    """The index to search with: valid and measured; None if there is none."""
    for each in all_of(connection, model_id):
        if each.valid and each.figures:
            return MeasuredIndex(**asdict(each.figures), slot=each.slot)
    return None


def _index(model_id: int, row: Row[Any]) -> PgvectorIndex:
    slots = [slot for slot in SLOTS if row.name == index_name(model_id, slot)]
    figures = _figures(row.comment, row.file) if slots else None
    return PgvectorIndex(row.name, sum(slots), row.valid, row.file, row.lists, figures)


def _figures(comment: str | None, file: int) -> Figures | None:
    """The figures in a comment of `save_figures`; None for any other comment, or another file."""
    try:
        values = json.loads(comment or "")
        return Figures(**values) if values.pop("file") == file else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def attached_models(connection: Connection) -> list[Model]:
    """All models whose partition is attached."""
    attached = ATTACHED.format(model="model.id")
    rows = connection.exec_driver_sql(f"SELECT {models.COLUMNS} FROM model WHERE {attached}")
    return [Model(*row) for row in rows]


def busy(connection: Connection, model_id: int) -> bool:
    """Whether a process is working on the indexes of a model."""
    held = PGVECTOR_LOCK_HELD.format(model=int(model_id))
    return bool(connection.exec_driver_sql(f"SELECT {held}").scalar_one())


def is_owner(connection: Connection, model_id: int) -> bool:
    """Whether this user may drop and create indexes; the role that only serves may not."""
    sql = """SELECT pg_has_role(c.relowner, 'USAGE')
            AND has_schema_privilege(c.relnamespace, 'CREATE')
        FROM pg_class AS c WHERE c.oid = to_regclass(:name)"""
    return bool(connection.execute(text(sql), {"name": _partition(model_id)}).scalar())


def has_rows(connection: Connection, model: Model, rows: int) -> bool:
    """Whether a model has at least so many embeddings. The size of the table mostly tells that it
    has not, and rows are counted only where it does not."""
    sql = """SELECT pg_relation_size(to_regclass(:part)) >= :bytes AND (
        SELECT count(*) FROM (
            SELECT FROM embedding WHERE model_id = :model LIMIT :rows) AS few) = :rows"""
    size = 2 * model.dim * rows
    values = {"part": _partition(model.id), "bytes": size, "rows": rows, "model": model.id}
    return bool(connection.execute(text(sql), values).scalar_one())


def list_count(rows: int, dim: int, memory: int) -> int:
    """The lists of an index of so many rows, as far as pgvector's k-means fits into `memory` bytes.

    It holds 50 rows per list, and for each of them a bound of its distance to every list.
    """
    quadratic, linear = 204, 52 * (2 * dim + 16) + 4 * dim + 412
    root = math.sqrt(linear**2 + 4 * quadratic * 0.95 * memory)
    fits = int((root - linear) / (2 * quadratic))
    return max(1, min(round(LISTS_PER_ROOT * math.sqrt(rows)), fits))


def create(connection: Connection, model: Model, slot: int, rows: int) -> None:
    """Create the index of about `rows` rows without blocking others; outside a transaction.

    Waits for older transactions. What an interrupted run left under the name is dropped first.
    """
    name, part = index_name(model.id, slot), _partition(model.id)
    drop(connection, name)
    timeouts.set_for_session(connection, statement_s=0, lock_s=0)
    try:
        lists = list_count(rows, model.dim, _raise_memory(connection))
        connection.execute(
            text(
                f"CREATE INDEX CONCURRENTLY {name} ON {part}"
                f" USING ivfflat ((vec::halfvec({model.dim:d})) halfvec_cosine_ops)"
                f" WITH (lists = {lists}) WHERE {condition(slot)}"
            )
        )
    finally:
        if not connection.invalidated:
            connection.execute(text("RESET maintenance_work_mem"))
            timeouts.reset(connection)


def _raise_memory(connection: Connection) -> int:
    """Give this session at least MIN_MEMORY for a build; returns the bytes it has."""
    statement = text(
        """SELECT pg_size_bytes(set_config('maintenance_work_mem',
            greatest(pg_size_bytes(current_setting('maintenance_work_mem')), :least) / 1024 || 'kB',
            false))"""
    )
    return int(connection.execute(statement, {"least": MIN_MEMORY}).scalar_one())


def drop(connection: Connection, name: str) -> None:
    """Drop an index, if it exists, without blocking others; outside a transaction."""
    timeouts.set_for_session(connection, statement_s=0, lock_s=0)
    try:
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
    finally:
        if not connection.invalidated:
            timeouts.reset(connection)


def save_figures(
    connection: Connection, model_id: int, index: PgvectorIndex, figures: Figures
) -> None:
    """Store what was measured of an index, in this transaction. From its end on searches use this
    index, and no other one of the model."""
    comment = json.dumps({"file": index.file, **asdict(figures)})
    for each in all_of(connection, model_id):
        value = sql.Literal(comment if each.name == index.name else None)
        statement = sql.SQL("COMMENT ON INDEX {} IS {}").format(sql.Identifier(each.name), value)
        connection.exec_driver_sql(statement.as_string())


def set_probes(connection: Connection, probes: int, *, iterate: bool = True) -> None:
    """How many lists a statement of this transaction compares with. With `iterate` it goes on to
    further lists until it has as many rows as it asks for."""
    scan = "relaxed_order" if iterate else "off"
    for name, value in (("ivfflat.probes", str(probes)), ("ivfflat.iterative_scan", scan)):
        connection.execute(
            text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value}
        )


def _partition(model_id: int) -> str:
    return f"embedding_m{int(model_id)}"
