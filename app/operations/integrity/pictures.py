"""The original pictures: whether they are where they came from, as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Protocol

from sqlalchemy import Engine

from app.db.engine import snapshot
from app.db.queries import pictures
from app.errors import BadImage
from app.images.decoding import ImageLimits, decode
from app.images.thumbnails import open_thumbnail, thumbnail
from app.operations.integrity.findings import (
    ExampleTally,
    Finding,
    ProgressCallback,
    find_and_repair,
)


class PictureFolder(Protocol):
    """A folder that pictures lie in."""

    def read(self, name: str) -> bytes:
        """The bytes of the picture that a source called `name`; raises BadImage if it cannot."""


class OriginalChanged(BadImage):
    """Another picture has taken the place of this one."""


class Originals:
    """The folders that the originals may lie in; the first that has one counts."""

    def __init__(self, folders: Sequence[PictureFolder]) -> None:
        self._folders = folders

    def __bool__(self) -> bool:
        return bool(self._folders)

    def read(self, uri: str, sha256: bytes) -> bytes:
        """The bytes with this sha256. Raises Changed, or BadImage with the reason."""
        failed: BadImage | None = None
        for folder in self._folders:
            try:
                data = folder.read(uri)
            except BadImage as exc:
                failed = failed or exc
                continue
            if hashlib.sha256(data).digest() == sha256:
                return data
            failed = OriginalChanged(f"{uri!r} is another picture now")
        raise failed or BadImage(f"{uri!r} is not there")

    def trouble(self, source: tuple[str, bytes]) -> BadImage | None:
        """What is wrong with an original; None if nothing is."""
        try:
            self.read(*source)
        except BadImage as exc:
            return exc
        return None


def find_originals(engine: Engine, where: Originals, tick: ProgressCallback) -> Iterator[Finding]:
    """Originals that are missing, cannot be read, or are other pictures now."""
    missing, changed, seen = ExampleTally(), ExampleTally(), 0
    with ThreadPoolExecutor() as threads, snapshot(engine) as connection:
        for portion in pictures.originals(connection):
            for trouble in filter(None, threads.map(where.trouble, portion)):
                (changed if isinstance(trouble, OriginalChanged) else missing).add(str(trouble))
            seen += len(portion)
            tick(f"{seen:,} originals")
    for found in (
        missing.finding(
            "originals-missing", "warning", "originals that cannot be read",
            "Searches do without; another model does not. Bring them back, or name their folder "
            "with --images.",
        ),
        changed.finding(
            "originals-changed", "warning", "originals that are other pictures now",
            "Load those products again with `lookalike ingest`, or bring the old files back.",
        ),
    ):  # fmt: skip
        if found is not None:
            yield found


MOST_BYTES = 20_480
"""As the column's own check allows."""


def find_thumbnails(
    engine: Engine, where: Originals, limits: ImageLimits, repair: bool, tick: ProgressCallback
) -> Iterator[Finding]:
    """Thumbnails that cannot be shown; with originals at hand they can be made anew."""
    mend = partial(_mend, engine, where, limits) if repair and where else None
    if (found := find_and_repair(partial(_look, engine, tick), mend)) is not None:
        yield found


def _look(engine: Engine, tick: ProgressCallback) -> Finding | None:
    damaged = ExampleTally()
    for id_ in _damaged(engine, tick):
        damaged.add(str(id_))
    return damaged.finding(
        "thumbnails-damaged", "error", "pictures whose thumbnail cannot be shown",
        "Run `lookalike check --images FOLDER --repair` with the folder of the originals.",
    )  # fmt: skip


def _damaged(engine: Engine, tick: ProgressCallback) -> Iterator[int]:
    """The ids of pictures whose thumbnail cannot be shown."""
    seen = 0
    with ThreadPoolExecutor() as threads, snapshot(engine) as connection:
        for portion in pictures.thumbnails(connection):
            fine = threads.map(_can_be_shown, (data for _, data in portion))
            yield from (id_ for (id_, _), good in zip(portion, fine, strict=True) if not good)
            seen += len(portion)
            tick(f"{seen:,} thumbnails")


def _can_be_shown(data: bytes) -> bool:
    try:
        open_thumbnail(data)
    except BadImage:
        return False
    return len(data) <= MOST_BYTES


def _mend(engine: Engine, where: Originals, limits: ImageLimits) -> str:
    made = 0
    for id_ in _damaged(engine, lambda said: None):
        with engine.begin() as connection:
            for uri, sha256 in pictures.sources(connection, id_):
                with suppress(BadImage):
                    picture = decode(where.read(uri, sha256), limits)
                    pictures.save_thumbnail(connection, id_, thumbnail(picture))
                    made += 1
                    break
    return f"{made} thumbnails were made anew of their originals"
