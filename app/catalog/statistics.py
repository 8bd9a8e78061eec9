"""Statistics of PostgreSQL's planner for tables that a load has just filled."""

from __future__ import annotations

import logging

from sqlalchemy import Engine

from app.db.queries import database_info, integrity
from app.errors import LookalikeError

_log = logging.getLogger("lookalike.statistics")


def analyse_new(engine: Engine) -> None:
    """Give PostgreSQL's planner statistics of tables that were just filled and have none yet.

    Autovacuum would do it within a minute. A table that another session is changing is left to it,
    and an error is logged, since the rows are stored in any case.
    """
    try:
        with engine.begin() as connection:
            if names := integrity.never_analysed(connection):
                database_info.analyse(connection, names, skip_locked=True)
    except LookalikeError as exc:
        _log.warning("Tables could not be analysed: %s", exc)
