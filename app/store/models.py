"""SQL of `model`: which encoder the embeddings belong to."""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.values import Model

COLUMNS = "id, name, revision, dim, fingerprint"


def active(connection: Connection) -> Model | None:
    """The model that searches and ingests use; None before `lookalike init`."""
    row = connection.execute(text(f"SELECT {COLUMNS} FROM model WHERE active")).one_or_none()
    return Model(*row) if row else None


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
