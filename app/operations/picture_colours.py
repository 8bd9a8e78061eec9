"""Computes the visible colours of stored pictures that have none, from their thumbnails.

Pictures of earlier versions have none, and those that a process of an earlier version writes during
an upgrade. The table is the checkpoint: it may be stopped and run again, and run beside anything.
"""

from __future__ import annotations

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.concurrency import BackgroundLoop
from app.db import locks
from app.db.engine import check_schema
from app.db.pipeline import open_pipeline
from app.db.queries import picture_colours
from app.errors import LookalikeError
from app.images.basic_colours import VERSION
from app.images.colours import colours_of_thumbnail
from app.types import ProgressCallback

BATCH = 256
"""Pictures of one transaction; a thumbnail has up to 20 KB."""

EVERY_S = 600.0
"""Seconds between two looks of the worker: new pictures are written with their colours."""

_log = logging.getLogger("lookalike.colours")


def fill(engine: Engine, notify: ProgressCallback = lambda _: None) -> int:
    """Compute what is missing, in the order of the pictures' ids; returns the number of pictures.

    Raises SchemaMismatch and DatabaseUnavailable; what was stored until then stays.
    """
    with engine.connect() as connection:
        check_schema(connection)
    done, after = 0, 0
    while True:
        with engine.connect() as connection:
            batch = picture_colours.without(connection, VERSION, after, BATCH)
        if not batch:
            return done
        colours = {id_: colours_of_thumbnail(thumbnail) for id_, thumbnail in batch}
        with locks.transaction(engine) as connection:
            with open_pipeline(connection) as pipeline:
                locks.begin_write(pipeline)
            picture_colours.store(connection, colours)
        done, after = done + len(batch), batch[-1][0]
        notify(f"colours of {done:,} pictures")


class ColourUpkeep(BackgroundLoop):
    """Computes what is missing every EVERY_S seconds, in a thread of its own. Where this user may
    not write, it logs that once and searches go on without these colours."""

    def __init__(self, engine: Engine, every_s: float = EVERY_S) -> None:
        super().__init__(
            self._fill,
            every_s,
            name="colours",
            log=_log,
            failure="the colours of pictures were not computed",
            expected=(LookalikeError, SQLAlchemyError),
        )
        self._engine = engine

    def _fill(self) -> str:
        if done := fill(self._engine):
            _log.info("the colours of %d pictures were computed", done)
        return ""
