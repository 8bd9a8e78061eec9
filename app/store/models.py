"""SQL of `model`: which encoder the embeddings belong to."""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.values import Model

COLUMNS = "id, name, revision, dim, fingerprint"

LAG = """CASE
    WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()
        AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) THEN 0
    ELSE greatest(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)
END"""
"""Seconds this replica is behind; NULL on a primary. What it does not receive it cannot know of:
without a connection to the primary, the age of the last change it replayed."""

ACTIVE_AND_LAG = f"""
SELECT {COLUMNS}, {LAG} AS lag
FROM (SELECT) AS here LEFT JOIN model ON model.active"""


def active(connection: Connection) -> Model | None:
    """The model that searches and ingests use; None before `lookalike init`."""
    row = connection.execute(text(f"SELECT {COLUMNS} FROM model WHERE active")).one_or_none()
    return Model(*row) if row else None


def active_and_lag(connection: Connection) -> tuple[Model | None, float | None]:
    """The active model, and how many seconds this replica is behind (None on a primary).

    A replica that is connected and has replayed all it received is not behind, however long ago
    that was.
    """
    row = connection.execute(text(ACTIVE_AND_LAG)).one()
    model = None if row.id is None else Model(*row[:5])
    return model, None if row.lag is None else float(row.lag)


def register(connection: Connection, name: str, revision: str, dim: int, fingerprint: str) -> Model:
    """Record an encoder and make the partition of its embeddings, unless it is known."""
    values = {"name": name, "revision": revision, "dim": dim, "fingerprint": fingerprint}
    found = connection.execute(
        text("SELECT register_model(:name, :revision, :dim, :fingerprint)"), values
    ).scalar_one()
    row = connection.execute(text(f"SELECT {COLUMNS} FROM model WHERE id = :id"), {"id": found})
    return Model(*row.one())


def activate_first(connection: Connection, model_id: int) -> bool:
    """Make this model the active one if none is; False if there is one already."""
    done = connection.execute(
        text(
            "UPDATE model SET active = true"
            " WHERE id = :id AND NOT EXISTS (SELECT FROM model WHERE active)"
        ),
        {"id": model_id},
    )
    return done.rowcount == 1
