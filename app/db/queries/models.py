"""SQL of `model` and `model_change`: registering, activating, maintaining and deleting models."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from app.db.pipeline import Deferred, Pipeline
from app.db.text import check_text
from app.errors import NoModel, UnknownModel
from app.types import Model

COLUMNS = """model.id, name, revision, dim, fingerprint, source,
    (SELECT base_name FROM model_projection WHERE model_id = model.id) AS base_name,
    (SELECT base_revision FROM model_projection WHERE model_id = model.id) AS base_revision"""
"""Columns of `model`, for the fields of `Model`."""

LAG = """CASE
    WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()
        AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) THEN 0
    ELSE greatest(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)
END"""
"""Seconds that this replica is behind its primary; NULL on a primary. Without a connection to the
primary, it is the age of the last transaction that the replica replayed."""

ACTIVE_AND_LAG = f"""
SELECT {COLUMNS}, {LAG} AS lag
FROM (SELECT) AS here LEFT JOIN model ON model.active"""

MAINTAINED = f"SELECT {COLUMNS} FROM model WHERE active OR maintained ORDER BY active DESC, id"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model with its number of embeddings, the number of pictures, and its newest build (id)."""

    model: Model
    active: bool
    maintained: bool
    created_at: datetime
    embeddings: int
    pictures: int
    build: int | None


def active(connection: Connection) -> Model | None:
    """The model that searches and ingests use; None before `lookalike init`."""
    row = connection.execute(text(f"SELECT {COLUMNS} FROM model WHERE active")).one_or_none()
    return Model(*row) if row else None


def require_active(connection: Connection) -> Model:
    """The model that searches and ingests use. Raises NoModel before `lookalike init`."""
    model = active(connection)
    if model is None:
        raise NoModel()
    return model


def active_at_any_revision(connection: Connection) -> Model | None:
    """The active model, read without the columns that later migrations added."""
    sql = "SELECT id, name, revision, dim, fingerprint FROM model WHERE active"
    row = connection.execute(text(sql)).one_or_none()
    return Model(*row) if row else None


def require_active_and_lag(connection: Connection) -> tuple[Model, float | None]:
    """The active model, and the seconds that this replica is behind (None on a primary).

    A connected replica that has replayed everything it received is not behind, however long ago
    the last transaction was. Raises NoModel before `lookalike init`.
    """
    row = connection.execute(text(ACTIVE_AND_LAG)).one()
    if row.id is None:
        raise NoModel()
    return Model(*row[:-1]), None if row.lag is None else float(row.lag)


def register(connection: Connection, name: str, revision: str, dim: int, fingerprint: str) -> Model:
    """Record an encoder and create its partition, unless its fingerprint is already recorded."""
    values = {"name": name, "revision": revision, "dim": dim, "fingerprint": fingerprint}
    model_id = connection.execute(
        text("SELECT register_model(:name, :revision, :dim, :fingerprint)"), values
    ).scalar_one()
    row = connection.execute(text(f"SELECT {COLUMNS} FROM model WHERE id = :id"), {"id": model_id})
    return Model(*row.one())


def activate_first(connection: Connection, model_id: int) -> bool:
    """Activate this model if no model is active; returns whether it did."""
    result = connection.execute(
        text(
            "UPDATE model SET active = true, maintained = true"
            " WHERE id = :id AND NOT EXISTS (SELECT FROM model WHERE active)"
        ),
        {"id": model_id},
    )
    return result.rowcount == 1


def resolve(connection: Connection, name: str) -> Model:
    """The newest model called NAME or NAME@REVISION. Raises UnknownModel."""
    check_text("model", name)
    matches = named(connection, name)
    if not matches:
        known = ", ".join(status.model.name for status in statuses(connection))
        raise UnknownModel(f"No model {name!r} is recorded; there are: {known or 'none'}.")
    return matches[0]


def named(connection: Connection, name: str) -> list[Model]:
    """The models of this name, newest first.

    Revisions of a model share its name; NAME@REVISION selects one, and a prefix of the revision is
    enough.
    """
    sql = f"""SELECT {COLUMNS} FROM model WHERE name = :name
            OR starts_with(name || '@' || revision, :name) AND length(:name) > length(name) + 1
        ORDER BY id DESC"""
    return [Model(*row) for row in connection.execute(text(sql), {"name": name})]


def by_fingerprint(connection: Connection, fingerprint: str) -> Model | None:
    """The model of the encoder with this fingerprint."""
    sql = f"SELECT {COLUMNS} FROM model WHERE fingerprint = :fingerprint"
    row = connection.execute(text(sql), {"fingerprint": fingerprint}).one_or_none()
    return Model(*row) if row else None


def maintained_by_id(connection: Connection, model_id: int) -> Model | None:
    """The model with this id; None if it does not exist or is not maintained."""
    return next((model for model in maintained(connection) if model.id == model_id), None)


def maintained(connection: Connection) -> list[Model]:
    """The models under which new pictures get embeddings, the active one first."""
    return [Model(*row) for row in connection.exec_driver_sql(MAINTAINED)]


def maintained_in(pipeline: Pipeline) -> Deferred[list[Model]]:
    """`maintained` as a statement of a pipeline."""
    rows = pipeline.send(MAINTAINED)
    return lambda: [Model(*row) for row in rows()]


def maintain(connection: Connection, model_id: int, source: str | None) -> None:
    """Let new pictures get an embedding under this model; `source` None keeps the recorded one."""
    sql = "UPDATE model SET maintained = true, source = coalesce(:source, source) WHERE id = :id"
    connection.execute(text(sql), {"id": model_id, "source": source})


def stop_maintaining(connection: Connection, model_id: int) -> None:
    """Let new pictures get no embedding under this model."""
    connection.execute(text("UPDATE model SET maintained = false WHERE id = :id"), {"id": model_id})


def activate(
    connection: Connection, former: Model | None, model: Model, forced_reason: str | None
) -> None:
    """Make this the active model and record the change, with the reason if it was forced.

    `former` is the model that was active before.
    """
    connection.execute(text("UPDATE model SET active = false WHERE active"))
    connection.execute(
        text("UPDATE model SET active = true, maintained = true WHERE id = :id"), {"id": model.id}
    )
    sql = """INSERT INTO model_change (former_id, active_id, former_name, active_name, forced)
        VALUES (:former, :active, :former_name, :active_name, :forced)"""
    values = {
        "former": former and former.id,
        "active": model.id,
        "former_name": former and former.name,
        "active_name": model.name,
        "forced": forced_reason,
    }
    connection.execute(text(sql), values)


def formerly_active(connection: Connection) -> Model | None:
    """The model that was active before the current one, if it still exists."""
    sql = f"""SELECT {COLUMNS} FROM model WHERE id = (
            SELECT former_id FROM model_change
            WHERE active_id = (SELECT id FROM model WHERE active) ORDER BY id DESC LIMIT 1)"""
    row = connection.execute(text(sql)).one_or_none()
    return Model(*row) if row else None


def statuses(connection: Connection) -> list[ModelStatus]:
    """All models with their counts, the active one first."""
    sql = f"""SELECT {COLUMNS}, active, maintained, created_at,
            (SELECT count(*) FROM embedding AS e WHERE e.model_id = model.id) AS embeddings,
            (SELECT count(*) FROM picture) AS pictures,
            (SELECT max(b.id) FROM index_build AS b
                WHERE b.model_id = model.id AND b.state = 'published') AS build
        FROM model ORDER BY active DESC, model.id"""
    return [ModelStatus(Model(*row[:-6]), *row[-6:]) for row in connection.execute(text(sql))]


def count_missing(connection: Connection, model_id: int) -> int:
    """The number of pictures without an embedding under this model."""
    sql = """SELECT count(*) FROM picture AS p WHERE NOT EXISTS (
        SELECT FROM embedding AS e WHERE e.picture_id = p.id AND e.model_id = :model)"""
    return int(connection.execute(text(sql), {"model": model_id}).scalar_one())


def next_without_embedding(
    connection: Connection, model_id: int, after: int, limit: int
) -> tuple[int, int]:
    """Of the first `limit` pictures above an id that have no embedding under this model: the last
    id, and how many they are. Without any: the id that was given, and 0."""
    sql = """SELECT coalesce(max(id), :after) AS last, count(*) AS pictures FROM (
            SELECT p.id FROM picture AS p WHERE p.id > :after AND NOT EXISTS (
                SELECT FROM embedding AS e WHERE e.picture_id = p.id AND e.model_id = :model)
            ORDER BY p.id LIMIT :limit) AS missing"""
    values = {"model": model_id, "after": after, "limit": limit}
    row = connection.execute(text(sql), values).one()
    return row.last, row.pictures


def pictures_without_embedding(
    connection: Connection, model_id: int, ids: range, limit: int
) -> list[tuple[int, bytes, list[str]]]:
    """Pictures without an embedding under this model: id, sha256, and the uris of their originals.

    Up to `limit` pictures with ids in the range, in the order of ids.
    """
    sql = """SELECT p.id, p.sha256, array(
            SELECT DISTINCT pp.uri FROM product_picture AS pp WHERE pp.picture_id = p.id) AS uris
        FROM picture AS p WHERE p.id BETWEEN :first AND :last AND NOT EXISTS (
            SELECT FROM embedding AS e WHERE e.picture_id = p.id AND e.model_id = :model)
        ORDER BY p.id LIMIT :limit"""
    values = {"model": model_id, "first": ids.start, "last": ids.stop - 1, "limit": limit}
    rows = connection.execute(text(sql), values)
    return [(row.id, bytes(row.sha256), list(row.uris)) for row in rows]


def delete(connection: Connection, model_id: int) -> None:
    """Delete a model whose partition is dropped, with all rows that belong to it.

    Raises ValueError if the model is active or maintained.
    """
    sql = "DELETE FROM model WHERE id = :id AND NOT active AND NOT maintained"
    if not connection.execute(text(sql), {"id": model_id}).rowcount:
        raise ValueError(f"model {model_id} is in use")
