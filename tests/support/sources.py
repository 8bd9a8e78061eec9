"""Sources on disk, ingests of them, and the contents of a catalogue as one comparable value."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from app.bootstrap import App
from app.encoders.preprocessing import PreparedPicture
from app.types import Vectors
from ingest.load import LoadOptions, load
from ingest.pipeline import IngestReport
from support.colours import ColourEncoder, photo

Row = Mapping[str, object]


class WatchedEncoder(ColourEncoder):
    """Counts the pictures it encodes, and calls `before` with the count so far before each call."""

    def __init__(self, before: Callable[[int], object] = lambda encoded: None) -> None:
        super().__init__()
        self.encoded = 0
        self.before = before
        self._alone = threading.Lock()

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        with self._alone:
            self.before(self.encoded)
            self.encoded += len(prepared)
        return super().encode_prepared(prepared)


def write_csv(source: Path, rows: Sequence[Row]) -> Path:
    """A CSV with the columns of all rows, in order of first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return source


def write_photos(folder: Path, seeds: Sequence[int], *, side: int = 8) -> None:
    """Write photo(seed) as `<seed>.png` for each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"{seed}.png").write_bytes(photo(seed, side=side))


def write_source(folder: Path, count: int, *, pictures: int = 1) -> Path:
    """A source of `count` products P0000, P0001, ... each with `pictures` distinct pictures."""
    write_photos(folder, range(count * pictures))
    names = [[f"{n * pictures + m}.png" for m in range(pictures)] for n in range(count)]
    return write_csv(
        folder / "catalogue.csv",
        [{"sku": f"P{n:04}", "title": f"title {n}", "images": "|".join(names[n])}
         for n in range(count)],
    )  # fmt: skip


class SingleEncoder:
    """Provides the same encoder for every model."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def active(self) -> Any:
        return self._encoder

    def for_model(self, _model_id: int) -> Any:
        return self._encoder

    def refresh_active(self) -> None: ...

    def preload(self) -> None: ...


def ingest(app: App, source: Path, **options: Any) -> IngestReport:
    """One run over a source; the option `encoder` replaces the App's own.

    The other options are those of LoadOptions and of `load`.
    """
    encoder = options.pop("encoder", None)
    use = app.encoders if encoder is None else SingleEncoder(encoder)
    callbacks = {name: options.pop(name) for name in ("progress", "notify") if name in options}
    return load(
        app.engine, app.catalog, use, app.limits, source, LoadOptions(**options), **callbacks
    )


CONTENTS = {
    "product": """SELECT sku, title, brand, category, colour, year, price, currency,
        attributes::text, identity_key FROM product""",
    "picture": "SELECT encode(sha256, 'hex'), width, height, md5(thumbnail) FROM picture",
    "shown": """SELECT sku, position, uri, encode(sha256, 'hex')
        FROM product_picture
        JOIN product ON product.id = product_id JOIN picture ON picture.id = picture_id""",
    "embedding": """SELECT model.name, encode(sha256, 'hex'), vec::text
        FROM embedding JOIN model ON model.id = model_id JOIN picture ON picture.id = picture_id""",
}


def contents(connection: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All loaded rows, in order, without ids and times, which differ between runs."""
    return {name: sorted(connection.execute(sql).fetchall(), key=repr)
            for name, sql in CONTENTS.items()}  # fmt: skip


def versions(connection: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """The location of each row and the transactions that wrote or locked it."""
    tables = ("product", "picture", "product_picture", "embedding")
    return {
        name: connection.execute(
            f"SELECT tableoid, ctid, xmin, xmax FROM {name} ORDER BY 1, 2"
        ).fetchall()
        for name in tables
    }
