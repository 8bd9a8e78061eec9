"""How much of a source is new to the catalogue, told before any picture of it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine

from app.db.queries import products
from app.errors import BadSource
from ingest.sources import Row, read

AT_ONCE = 5000
"""Rows that are looked up together."""


def new_pictures(engine: Engine, source: Path, encoding: str) -> int:
    """How many pictures the products show that the catalogue lacks.

    More than will be embedded where they share pictures, and fewer where products that are there
    show others than before. A source is counted as far as it can be read.
    """
    found = 0
    with suppress(BadSource), engine.connect() as connection:
        for shown in _portions(read(source, encoding=encoding)):
            known = products.ids(connection, list(shown))
            found += sum(images for sku, images in shown.items() if sku not in known)
    return found


def _portions(rows: Iterable[object]) -> Iterator[dict[str, int]]:
    """Skus with the number of their pictures, so many at a time."""
    good = (row for row in rows if isinstance(row, Row))
    while portion := {row.product.sku: len(row.images) for row in islice(good, AT_ONCE)}:
        yield portion
