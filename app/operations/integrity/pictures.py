"""Checks the original pictures and the stored thumbnails."""

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
from app.images.url import is_address
from app.operations.integrity.findings import (
    ExampleTally,
    Finding,
    find_and_repair,
)
from app.types import ProgressCallback


class PictureFolder(Protocol):
    """A folder of original pictures."""

    def read(self, name: str) -> bytes:
        """The bytes of the picture that a source names `name`. Raises BadImage with the reason."""


class OriginalChanged(BadImage):
    """The original was replaced by another picture."""


class Originals:
    """Finds originals in several folders; the first folder with the right bytes is used."""

    def __init__(self, folders: Sequence[PictureFolder]) -> None:
        self._folders = folders

    def __bool__(self) -> bool:
        return bool(self._folders)

    def read(self, uri: str, sha256: bytes) -> bytes:
        """The bytes with this sha256. Raises OriginalChanged, or BadImage with the reason."""
        error: BadImage | None = None
        for folder in self._folders:
            try:
                data = folder.read(uri)
            except BadImage as exc:
                error = error or exc
                continue
            if hashlib.sha256(data).digest() == sha256:
                return data
            error = OriginalChanged(f"{uri!r} is another picture now")
        raise error or BadImage(f"{uri!r} is not there")

    def check(self, source: tuple[str, bytes]) -> BadImage | None:
        """The error on reading an original (uri, sha256); None if there is none."""
        try:
            self.read(*source)
        except BadImage as exc:
            return exc
        return None


def find_originals(
    engine: Engine, originals: Originals, notify: ProgressCallback
) -> Iterator[Finding]:
    """Originals that are missing, cannot be read, or were replaced by other pictures.

    Those with a web address are not asked for.
    """
    missing, changed, seen = ExampleTally(), ExampleTally(), 0
    with ThreadPoolExecutor() as threads, snapshot(engine) as connection:
        for portion in pictures.originals(connection):
            files = [original for original in portion if not is_address(original[0])]
            for error in filter(None, threads.map(originals.check, files)):
                (changed if isinstance(error, OriginalChanged) else missing).add(str(error))
            seen += len(portion)
            notify(f"{seen:,} originals")
    for finding in (
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
        if finding is not None:
            yield finding


MAX_THUMBNAIL_BYTES = 20_480
"""Limit of the column's check constraint."""


def find_thumbnails(
    engine: Engine,
    originals: Originals,
    limits: ImageLimits,
    repair: bool,
    notify: ProgressCallback,
) -> Iterator[Finding]:
    """Thumbnails that cannot be shown; repaired from the originals, if there are folders."""
    fix = partial(_recreate_thumbnails, engine, originals, limits) if repair and originals else None
    if (finding := find_and_repair(partial(_find_damaged, engine, notify), fix)) is not None:
        yield finding


def _find_damaged(engine: Engine, notify: ProgressCallback) -> Finding | None:
    damaged = ExampleTally()
    for id_ in _damaged_thumbnails(engine, notify):
        damaged.add(str(id_))
    return damaged.finding(
        "thumbnails-damaged", "error", "pictures whose thumbnail cannot be shown",
        "Run `lookalike check --images FOLDER --repair` with the folder of the originals.",
    )  # fmt: skip


def _damaged_thumbnails(engine: Engine, notify: ProgressCallback) -> Iterator[int]:
    """The ids of pictures whose thumbnail cannot be shown."""
    seen = 0
    with ThreadPoolExecutor() as threads, snapshot(engine) as connection:
        for portion in pictures.thumbnails(connection):
            fine = threads.map(_can_be_shown, (data for _, data in portion))
            yield from (id_ for (id_, _), good in zip(portion, fine, strict=True) if not good)
            seen += len(portion)
            notify(f"{seen:,} thumbnails")


def _can_be_shown(data: bytes) -> bool:
    try:
        open_thumbnail(data)
    except BadImage:
        return False
    return len(data) <= MAX_THUMBNAIL_BYTES


def _recreate_thumbnails(engine: Engine, originals: Originals, limits: ImageLimits) -> str:
    made = 0
    for id_ in _damaged_thumbnails(engine, lambda progress: None):
        with engine.begin() as connection:
            for uri, sha256 in pictures.sources(connection, id_):
                with suppress(BadImage):
                    picture = decode(originals.read(uri, sha256), limits)
                    pictures.save_thumbnail(connection, id_, thumbnail(picture))
                    made += 1
                    break
    return f"{made} thumbnails were recreated from their originals"
