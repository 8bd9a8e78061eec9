"""Integrity: looks for damage of every kind, says what to do, and repairs what is safe to.

Nothing people wrote is deleted. A catalogue of any size is read in portions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine

from app.db.engine import check_schema
from app.db.queries import database_info
from app.encoders.base import Encoder
from app.errors import BadInput, BuildRunning
from app.images.decoding import ImageLimits
from app.index.builder import only_builder
from app.index.file_store import IndexFiles
from app.operations.integrity import encoder, index, rows, words
from app.operations.integrity import pictures as picture_checks
from app.operations.integrity.findings import (
    Finding,
    IntegrityReport,
    ProgressCallback,
    run_queries,
)
from app.operations.integrity.pictures import Originals, PictureFolder

__all__ = ["CheckOptions", "Finding", "IntegrityReport", "PictureFolder", "check"]


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What to look at beside the database and the index files, and whether to repair.

    `folders` hold the original pictures; `load` brings the encoder.
    """

    folders: Sequence[PictureFolder] = ()
    load: Callable[[], Encoder] | None = None
    repair: bool = False


def check(
    engine: Engine,
    files: IndexFiles,
    limits: ImageLimits,
    wanted: CheckOptions = CheckOptions(),
    tick: ProgressCallback = lambda said: None,
) -> IntegrityReport:
    """Look for damage. Raises SchemaMismatch, DatabaseUnavailable; BadInput to repair a replica."""
    replica = _standing(engine, wanted.repair)
    where = Originals(wanted.folders)
    left_out: list[str] = []
    found = [
        *run_queries(engine, rows.QUERIES, wanted.repair),
        *words.find(engine, wanted.repair, tick),
        *picture_checks.find_thumbnails(engine, where, limits, wanted.repair, tick),
    ]
    with _index(engine, replica, left_out) as may_look:
        found += index.find(engine, files, wanted.repair, tick) if may_look else ()
    if wanted.load is not None:
        found += encoder.find(engine, wanted.load, where, limits)
    else:
        left_out.append("the encoder: name --encoder to load it")
    if where:
        found += picture_checks.find_originals(engine, where, tick)
    else:
        left_out.append("the original pictures: name their folder with --images")
    return IntegrityReport(tuple(found), tuple(left_out))


def _standing(engine: Engine, repair: bool) -> bool:
    """Whether this is a replica, where nothing can be repaired."""
    with engine.connect() as connection:
        check_schema(connection)
        replica = database_info.is_replica(connection)
    if replica and repair:
        raise BadInput("This is a replica; repair the primary server.")
    return replica


@contextmanager
def _index(engine: Engine, replica: bool, left_out: list[str]) -> Iterator[bool]:
    """Hold the builder's lock if it is free; else the index is left out."""
    if replica:
        left_out.append("the index: this is a replica, look at it on the primary server")
        yield False
        return
    try:
        with only_builder(engine):
            yield True
    except BuildRunning:
        left_out.append("the index: it is being built; look again afterwards")
        yield False
