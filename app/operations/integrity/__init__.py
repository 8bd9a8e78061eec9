"""Integrity check: finds damage in the catalogue, advises, and repairs what is safe to repair.

User data is never deleted. Tables are read in portions, so a catalogue may have any size.
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
    run_queries,
)
from app.operations.integrity.pictures import Originals, PictureFolder
from app.types import ProgressCallback

__all__ = ["CheckOptions", "Finding", "IntegrityReport", "PictureFolder", "check"]


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What to check in addition to the database and the index files, and whether to repair.

    `folders` hold the original pictures; `load` loads the encoder. Empty or None: not checked.
    Pictures that more than `shared` products show are named. Searches and events should be deleted
    after `event_days`.
    """

    folders: Sequence[PictureFolder] = ()
    load: Callable[[], Encoder] | None = None
    repair: bool = False
    shared: int = 20
    event_days: float = 30.0


def check(
    engine: Engine,
    files: IndexFiles,
    limits: ImageLimits,
    wanted: CheckOptions = CheckOptions(),
    notify: ProgressCallback = lambda message: None,
) -> IntegrityReport:
    """Check the catalogue; `notify` is called often with the progress.

    Raises SchemaMismatch, DatabaseUnavailable, and BadInput when asked to repair a replica.
    """
    replica = _is_replica(engine, wanted.repair)
    originals = Originals(wanted.folders)
    left_out: list[str] = []
    findings = [
        *run_queries(
            engine,
            (
                *rows.QUERIES,
                rows.shared_pictures(wanted.shared),
                rows.events_overdue(wanted.event_days),
            ),
            wanted.repair,
        ),
        *words.find(engine, wanted.repair, notify),
        *picture_checks.find_thumbnails(engine, originals, limits, wanted.repair, notify),
    ]
    with _builder_lock(engine, replica, left_out) as locked:
        findings += index.find(engine, files, wanted.repair, notify) if locked else ()
    if wanted.load is not None:
        findings += encoder.find(engine, wanted.load, originals, limits)
    else:
        left_out.append("the encoder: name --encoder to load it")
    if originals:
        findings += picture_checks.find_originals(engine, originals, notify)
    else:
        left_out.append("the original pictures: name their folder with --images")
    return IntegrityReport(tuple(findings), tuple(left_out))


def _is_replica(engine: Engine, repair: bool) -> bool:
    """Whether this is a replica. Raises BadInput if it is and `repair` is requested."""
    with engine.connect() as connection:
        check_schema(connection)
        replica = database_info.is_replica(connection)
    if replica and repair:
        raise BadInput("This is a replica; repair the primary server.")
    return replica


@contextmanager
def _builder_lock(engine: Engine, replica: bool, left_out: list[str]) -> Iterator[bool]:
    """Hold the builder's lock if it is free; otherwise the index is not checked."""
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
