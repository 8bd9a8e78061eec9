"""NOTIFY and LISTEN: tells workers that the catalogue changed."""

from __future__ import annotations

import psycopg
from sqlalchemy import Connection

from app.db.pipeline import Pipeline, open_pipeline

CHANNEL = "lookalike_changed"
"""Channel that writers notify and workers listen on."""

NOTIFY = """SELECT pg_notify(%(channel)s, '') AS told
    WHERE pg_current_xact_id_if_assigned() IS NOT NULL AND pg_notification_queue_usage() < 0.9"""


def notify(connection: Connection) -> None:
    """Notify workers when this transaction commits, if it wrote anything.

    Skipped when the notification queue of the server is nearly full, since the commit would fail
    on a full one. Workers poll as well.
    """
    with open_pipeline(connection) as pipeline:
        notify_in(pipeline)


def notify_in(pipeline: Pipeline) -> None:
    """The same, as a statement of a pipeline."""
    pipeline.send(NOTIFY, {"channel": CHANNEL})


def listen(connection: psycopg.Connection) -> None:
    """Receive the notifications of writers on this connection, which must be in autocommit mode."""
    connection.execute(f"LISTEN {CHANNEL}")
