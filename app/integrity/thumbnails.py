"""Thumbnails: whether each can be shown, and making one anew of its original."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from sqlalchemy import Engine

from app.db.engine import snapshot
from app.db.queries import pictures
from app.errors import BadImage
from app.images.decoding import ImageLimits, decode
from app.images.thumbnails import open_thumbnail, thumbnail
from app.integrity.findings import Finding, mended
from app.integrity.originals import Originals
from app.integrity.tally import Tally, Tick

MOST_BYTES = 20_480
"""As the column's own check allows."""


def find(
    engine: Engine, where: Originals, limits: ImageLimits, repair: bool, tick: Tick
) -> Iterator[Finding]:
    """Thumbnails that cannot be shown; with originals at hand they can be made anew."""
    mend = partial(_mend, engine, where, limits) if repair and where else None
    if (found := mended(partial(_look, engine, tick), mend)) is not None:
        yield found


def _look(engine: Engine, tick: Tick) -> Finding | None:
    damaged = Tally()
    for id_ in _damaged(engine, tick):
        damaged.add(str(id_))
    return damaged.finding(
        "thumbnails-damaged", "error", "pictures whose thumbnail cannot be shown",
        "Run `lookalike check --images FOLDER --repair` with the folder of the originals.",
    )  # fmt: skip


def _damaged(engine: Engine, tick: Tick) -> Iterator[int]:
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
