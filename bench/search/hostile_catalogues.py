"""Hostile catalogues: how much longer than an ordinary search does one of each take?

    python -m bench.search.hostile_catalogues [--rows 10000] [--rounds 15]

An ordinary catalogue gets groups of products, each in its own region of the vector space: very long
titles, one spelling a thousand times, one picture for thousands, near-identical photos, prices and
years at the edges. A default search (twelve products, duplicates folded) meets one group. All are
measured alternately: processor time of client and server, with the ratio to a search among
ordinary products, in the median of the rounds.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from app.bootstrap import App
from app.catalog.batch_write import Batch, ProductEntry
from app.types import PictureData, PictureRef, Product, Query, Vector
from bench.data.catalogue import catalogue
from bench.data.vectors import DIM
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio
from bench.search.query_kinds import processor_ms

ORDINARY = "ordinary"
BLOCK = 5
"""Searches of a catalogue in each round."""

GOAL = 3.0
"""Times an ordinary search."""

NEAR, FAR = 0.02, 0.7
"""Length of the random step from the centre of a group: near-identical photos, other photos."""


@dataclass(frozen=True, slots=True)
class Group:
    """Products with the number of their picture, and how far their pictures are from the centre."""

    products: Sequence[tuple[Product, int]]
    spread: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="ordinary products")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    report = BenchmarkReport(
        "hostile_catalogues", "A search that meets a hostile group of products"
    )
    with catalogue(options.rows, own=True) as app:
        centres = {name: write(app, name, group) for name, group in groups().items()}
        app.indexer.rebuild()
        measure(app, report, centres | {ORDINARY: stored_vector(app)}, options.rounds)
    report.write()


def groups() -> Mapping[str, Group]:
    """The hostile groups by name."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [f"{a}{b}ovar{c}en" for a in letters for b in "aeiou" for c in letters]
    return {
        "120 titles of 100 words, a letter apart": titled(120, lambda n: respelt(words[:100], n)),
        "120 titles of 1,500 words": titled(120, lambda n: respelt(words[:1500], n)),
        "120 titles of 30 words, a letter apart": titled(120, lambda n: respelt(words[:30], n)),
        "300 + 300 of two spellings": titled(600, lambda n: f"la{('nt', 'tn')[n % 2]}ern ovar"),
        "one spelling 1,000 times, other photos": titled(1000, lambda n: "corano ovar", FAR),
        "one spelling 1,000 times, near photos": titled(1000, lambda n: "jorvik ovar"),
        "1,000 gtins of one spelling": gtins(1000),
        "one picture for 3,000 titles": titled(3000, lambda n: f"ovar{words[n]}", picture=0),
        "one picture for 3,000 of one title": titled(3000, lambda n: "marria ovar", picture=0),
        "100 products of 30 listings": titled(3000, lambda n: f"{words[n % 100]} ovar"),
        "2,000 near-identical photos": titled(2000, lambda n: f"{words[n]} ovar"),
        "prices and years at the edges": edges(1000),
    }


def titled(
    count: int, title: Callable[[int], str], spread: float = NEAR, picture: int | None = None
) -> Group:
    """Products with titles by number, each with a picture of its own or all with one."""
    return Group(
        [
            (Product(str(n), title(n), "Kestrel", "Lamp", "red"), n if picture is None else picture)
            for n in range(count)
        ],
        spread,
    )


def respelt(words: Sequence[str], number: int) -> str:
    """The words with one letter of one of them replaced."""
    place = number % len(words)
    letter = chr(ord("a") + number // len(words) % 26)
    return " ".join((*words[:place], words[place] + letter, *words[place + 1 :]))


def gtins(count: int) -> Group:
    """Products with one title, each with a gtin of its own."""
    products = []
    for number in range(count):
        digits = f"{number + 1:012}"
        total = sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(digits))
        gtin = {"gtin": f"{digits}{-total % 10}"}
        products.append((Product(str(number), "marria ovar", "Kestrel", attributes=gtin), number))
    return Group(products, NEAR)


def edges(count: int) -> Group:
    """Products of one title with the least and the greatest years and prices."""
    years, prices = (0, 9999, None), (Decimal(0), Decimal("99999999.9999"), None)
    return Group(
        [
            (
                Product(
                    str(n), f"marria {n % 7}", "Kestrel", year=years[n % 3], price=prices[n % 3]
                ),
                n,
            )
            for n in range(count)
        ],
        NEAR,
    )


def write(app: App, name: str, group: Group) -> Vector:
    """Write a group; returns its centre."""
    draw = np.random.default_rng(list(name.encode()))
    centre = draw.standard_normal(DIM)
    centre /= np.linalg.norm(centre)
    stored, vectors = {}, {}
    entries = []
    for product, number in group.products:
        sha = hashlib.sha256(f"{name} {number}".encode()).digest()
        if sha not in stored:
            step = draw.standard_normal(DIM) * (group.spread / DIM**0.5)
            vectors[sha] = ((centre + step) / np.linalg.norm(centre + step)).astype(np.float32)
            stored[sha] = PictureData(sha, 480, 480, bytes(15_000))
        own = Product(**(as_fields(product) | {"sku": f"{name[:40]} {product.sku}"}))
        entries.append(ProductEntry(own, (PictureRef(sha, f"{number}.jpg"),)))
    model = app.catalog.model()
    for first in range(0, len(entries), 500):
        part = entries[first : first + 500]
        shown = {ref.sha256 for entry in part for ref in entry.pictures}
        app.catalog.write(
            Batch(part, {s: stored[s] for s in shown}, {s: vectors[s] for s in shown}), model
        )
    return centre.astype(np.float32)


def as_fields(product: Product) -> dict[str, object]:
    return {name: getattr(product, name) for name in Product.__dataclass_fields__}


def stored_vector(app: App) -> Vector:
    """The vector of an ordinary product."""
    with app.engine.connect() as connection:
        sql = "SELECT vec::vector::real[] FROM embedding ORDER BY picture_id LIMIT 1"
        return np.array(connection.exec_driver_sql(sql).scalar_one(), np.float32)


def measure(app: App, report: BenchmarkReport, centres: Mapping[str, Vector], rounds: int) -> None:
    model_id = app.catalog.model().id

    def search(vector: Vector) -> Callable[[], float]:
        def run() -> float:
            before = processor_ms(app)
            for _ in range(BLOCK):
                app.search.search(Query(vector=vector, model_id=model_id, k=12, fold=True))
            return (processor_ms(app) - before) / BLOCK

        return run

    measured = measure_alternately(
        {name: search(vector) for name, vector in centres.items()}, rounds, unit="ms", warmup=2
    )
    for name, vector in centres.items():
        result = app.search.search(Query(vector=vector, model_id=model_id, k=12, fold=True))
        times = ratio(measured[name], measured[ORDINARY])
        report.row(
            catalogue=name, matches=len(result.matches), processor=measured[name], ratio=times
        )
        report.goal(name, times, GOAL, at_least=False)


if __name__ == "__main__":
    main()
