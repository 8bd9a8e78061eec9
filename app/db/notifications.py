"""NOTIFY: tells workers that the catalogue changed."""

from __future__ import annotations

from sqlalchemy import Connection

from app.db.pipeline import Pipeline, open_pipeline

CHANNEL = "lookalike_changed"
"""Where writers tell workers, with NOTIFY, that the catalogue changed."""


NOTIFY = """SELECT pg_notify(%(channel)s, '') AS told
    WHERE pg_current_xact_id_if_assigned() IS NOT NULL AND pg_notification_queue_usage() < 0.9"""


def notify(connection: Connection) -> None:
    """Let the workers know when this transaction commits, if it wrote anything.

    Not where somebody has filled the queue, for then the commit would fail; workers look anyway.
    """
    with open_pipeline(connection) as trip:
        notify_in(trip)


def notify_in(trip: Pipeline) -> None:
    """The same, on a trip."""
    trip.send(NOTIFY, {"channel": CHANNEL})
