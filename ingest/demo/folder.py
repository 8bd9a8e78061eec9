"""Writes the demo catalogue to a folder: pictures, query photos, two CSV files, a stamp."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from app import atomic_files
from app.errors import BadInput
from ingest.demo.catalogue import Item, invent
from ingest.demo.photo import A_CUSTOMER, ANOTHER_ANGLE, STUDIO, photograph

# Increase it when the same seed gives other bytes: existing folders are then drawn again.
VERSION = 1
QUERIES = 24
STAMP = ".demo.json"
COLUMNS: tuple[str, ...] = (
    "sku",
    "title",
    "brand",
    "category",
    "colour",
    "year",
    "price",
    "currency",
)
COLUMNS += ("material", "pattern", "images")


def draw_catalogue(folder: Path, *, products: int = 320, seed: int = 7) -> Path:
    """Draws the demo catalogue and returns the path of its `catalogue.csv`.

    Next to it: `images/`, `queries/` (catalogue objects photographed again) and `queries.csv`
    (query, expected_sku). The same arguments give the same bytes under the same versions of
    Pillow and numpy. A folder that already holds this catalogue is not changed; an incomplete one
    is drawn again. Raises BadInput if the folder holds another catalogue.
    """
    stamp: dict[str, object] = {
        "version": VERSION,
        "products": products,
        "seed": seed,
        "complete": True,
    }
    target = folder / "catalogue.csv"
    if _stamp(folder) == stamp and _is_complete(folder):
        return target
    _clear(folder)
    _write_stamp(folder, {**stamp, "complete": False})
    items = invent(products, seed)
    _write_table(target, COLUMNS, _draw_products(folder, items, seed))
    _write_table(
        folder / "queries.csv", ("query", "expected_sku"), _draw_queries(folder, items, seed)
    )
    _write_stamp(folder, stamp)
    return target


def _draw_products(folder: Path, items: Sequence[Item], seed: int) -> Iterable[tuple[str, ...]]:
    firsts: dict[str, bytes] = {}
    for number, item in enumerate(items):
        names = [f"images/{item.sku}{f'-{n + 1}' if n else ''}.jpg" for n in range(item.pictures)]
        for n, name in enumerate(names):
            drawn = _picture(item, n, _mixed(seed, number, n), firsts)
            if n == 0:
                firsts[item.sku] = drawn
            (folder / name).write_bytes(drawn)
        yield _row(item, names)


def _picture(item: Item, place: int, seed: int, firsts: dict[str, bytes]) -> bytes:
    if item.original and item.reissue != "new photograph":
        return firsts[item.original]
    return photograph(item.kind, item.look, seed, ANOTHER_ANGLE if place else STUDIO)


def _row(item: Item, names: Sequence[str]) -> tuple[str, ...]:
    words = (item.sku, item.title, item.brand, item.kind.name, item.colour, str(item.year))
    return (*words, item.price, "EUR", item.material, item.pattern, "|".join(names))


def _draw_queries(folder: Path, items: Sequence[Item], seed: int) -> Iterable[tuple[str, ...]]:
    again = {item.original for item in items}
    # A product released twice has two correct matches, so the queries show other products.
    candidates = [item for item in items if item.original is None and item.sku not in again]
    for number, item in enumerate(candidates[-QUERIES:]):
        name = f"queries/{number + 1:02}-{item.kind.name.replace(' ', '-').lower()}.jpg"
        drawn = photograph(item.kind, item.look, _mixed(seed, number, 1000), A_CUSTOMER)
        (folder / name).write_bytes(drawn)
        yield name, item.sku


def _mixed(seed: int, number: int, picture: int) -> int:
    return (seed * 1_000_003 + number) * 1_009 + picture


def _stamp(folder: Path) -> object:
    try:
        return json.loads((folder / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _is_complete(folder: Path) -> bool:
    """Whether all pictures in the two CSV files exist."""
    try:
        with (folder / "catalogue.csv").open(encoding="utf-8", newline="") as file:
            names = [name for row in csv.DictReader(file) for name in row["images"].split("|")]
        with (folder / "queries.csv").open(encoding="utf-8", newline="") as file:
            names += [row["query"] for row in csv.DictReader(file)]
    except FileNotFoundError:
        return False
    return all((folder / name).is_file() for name in names)


def _clear(folder: Path) -> None:
    """Removes the pictures of an earlier demo, and no other files."""
    if (folder / "catalogue.csv").exists() and not (folder / STAMP).exists():
        raise BadInput(f"{folder} holds a catalogue that is not the demo's; choose another folder.")
    for name in ("images", "queries"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for old in (*(folder / "images").glob("DEMO-*.jpg"), *(folder / "queries").glob("??-*.jpg")):
        old.unlink()


def _write_table(target: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    atomic_files.write_bytes(target, text.getvalue().encode(), durable=False)


def _write_stamp(folder: Path, content: dict[str, object]) -> None:
    line = json.dumps(content) + "\n"
    atomic_files.write_bytes(folder / STAMP, line.encode(), durable=False)
