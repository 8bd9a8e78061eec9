"""Warnings that PostgreSQL sends while statements run, in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


@contextmanager
def warnings_logged(connection: psycopg.Connection[object], log: logging.Logger) -> Iterator[None]:
    """Log the server's warnings during the block: what a script left undone, and what to do."""

    def log_warning(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            log.warning("%s %s", notice.message_primary, notice.message_hint or "")

    connection.add_notice_handler(log_warning)
    try:
        yield
    finally:
        connection.remove_notice_handler(log_warning)
