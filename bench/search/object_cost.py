"""What a photo with objects costs after encoding, next to a photo searched as a whole.

    python -m bench.search.object_cost --rows 100000

The photos are drawn as vectors: two products of the catalogue in front of a background, far from
both as a whole, and windows that show one of them as far as they cover it. So nothing is decoded or
encoded, and everything else is as on the page: 12 results, duplicates folded, objects proposed. The
catalogue is that of `query_kinds`. The kinds are run in turn and compared within a round, by
processor time of client and server, which does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import psycopg

from app.bootstrap import App
from app.index.status import index_status
from app.search.explain import StageTimer
from app.search.fast_path import FastPath
from app.search.filter_cache import FilterCache
from app.search.query_encoder import EncodedQuery, QueryEncoder
from app.search.regions import ObjectFinder, ObjectLimits, limits_of
from app.search.service import SearchService
from app.search.vector_cache import VectorCache
from app.search.windows import Windows, common_share, window_grid
from app.types import Model, Query, Region, Vector, Vectors
from app.vectors import unit_rows
from bench.data.catalogue import catalogue
from bench.data.titled_products import is_duplicate
from bench.data.vectors import DIM, generate_vectors
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio
from bench.search.query_kinds import WARMUP, K, processor_ms

GOAL = 2.0
"""Most processor time after encoding of a photo with objects, in searches as a whole."""

SIZE = (640, 480)
BOXES = ((0.05, 0.2, 0.45, 0.75), (0.55, 0.3, 0.95, 0.85))
"""Where the two products are, as fractions of the photo's sides."""

SHOWN = 0.6
"""Length of a product in the vector of its box, next to a background of length 1."""


@dataclass(frozen=True)
class DrawnPhoto:
    """A photo as its vectors: whole, windows, and the regions that are cut out."""

    objects: Vectors
    background: Vector

    def vectors(self, regions: Sequence[Region]) -> Vectors:
        """Unit vectors of regions, (n, dim): of a product the more, the more of both is common."""
        boxes = np.asarray(regions)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        rows = np.tile(self.background, (len(regions), 1))
        for box, vector in zip(BOXES, self.objects, strict=True):
            own = (box[2] - box[0]) * (box[3] - box[1])
            common = common_share(box, boxes) * np.minimum(own, areas)
            rows += (4 * SHOWN * common / (own + areas - common))[:, np.newaxis] * vector
        return unit_rows(rows.astype(np.float32))


class DrawnEncoder(QueryEncoder):
    """Has the vectors of drawn photos; the bytes of a picture are the number of its photo."""

    def __init__(self, photos: Sequence[DrawnPhoto], model: Model) -> None:
        self.photos = photos
        self.model = model
        self.windows: dict[bytes, Windows] = {}
        grid = window_grid(SIZE)
        for number, photo in enumerate(photos):
            self.windows[str(number).encode()] = Windows(grid, photo.vectors(grid), 24.0)

    @contextmanager
    def decoding(self, query: Query, cache: VectorCache) -> Any:
        """Nothing is decoded."""
        yield self

    def repeated(self, search: Callable[[], Any]) -> Any:
        """A search, of which nothing has to be repeated."""
        return search()

    def encode(
        self, query: Query, timer: StageTimer, cache: VectorCache | None = None
    ) -> EncodedQuery:
        """The vector of the whole photo."""
        assert query.picture is not None
        [whole] = self.photos[int(query.picture)].vectors([(0, 0, 1, 1)])
        return EncodedQuery(self.model.fingerprint, (whole,), maps_regions=True)

    def map_windows(
        self, query: Query, fingerprint: str, cache: VectorCache | None = None
    ) -> Windows | None:
        """The windows of the photo."""
        assert query.picture is not None
        return self.windows[query.picture]

    def encode_regions(
        self, query: Query, regions: Sequence[Region], cache: VectorCache | None = None
    ) -> Vectors:
        """The vectors of regions."""
        assert query.picture is not None
        return self.photos[int(query.picture)].vectors(regions)


def draw_photos(rows: int, count: int) -> list[DrawnPhoto]:
    """Photos of two products each, before backgrounds that no product has."""
    random = np.random.default_rng(7)
    stored = generate_vectors(min(rows, 10_000), 1)
    chosen = [int(row) for row in random.permutation(len(stored)) if not is_duplicate(row)]
    pairs = np.array(chosen[: 2 * count]).reshape(count, 2)
    grounds = unit_rows(random.standard_normal((count, DIM)).astype(np.float32))
    return [DrawnPhoto(stored[pair], ground) for pair, ground in zip(pairs, grounds, strict=True)]


def service(app: App, photos: Sequence[DrawnPhoto], limits: ObjectLimits) -> SearchService:
    """The search service of an app, with the vectors of drawn photos."""
    encoder = DrawnEncoder(photos, app.catalog.model())
    fast_path = FastPath(
        app.fast_engine, app.files, app.settings, FilterCache(app.search_engine)
    )  # fmt: skip
    return SearchService(
        app.search_engine, encoder, app.files, app.settings, fast_path=fast_path,
        objects=ObjectFinder(encoder, app.files, app.settings, lambda _: limits),
    )  # fmt: skip


def counted(search: Callable[[int], Any]) -> int:
    """How many statements the search of the first photo sends."""
    sent: list[object] = []
    execute = psycopg.Cursor.execute

    def counting(cursor: Any, sql: Any, *values: Any, **options: Any) -> Any:
        sent.append(sql)
        return execute(cursor, sql, *values, **options)

    with patch.object(psycopg.Cursor, "execute", counting):
        search(0)
    return len(sent)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--block", type=int, default=10, help="photos of a kind per round")
    options = parser.parse_args()
    report = BenchmarkReport("object_cost", f"Photos with objects, {os.cpu_count()} cores")
    for rows in options.rows or [100_000]:
        with catalogue(rows, titled=True) as app:
            if index_status(app.engine, app.settings).in_use is None:
                app.indexer.rebuild()
            measure(app, rows, options.rounds, options.block, report)
    report.write()


def measure(app: App, rows: int, rounds: int, block: int, report: BenchmarkReport) -> None:
    """Measure photos as wholes and with objects, merged and not, and count their statements."""
    photos = draw_photos(rows, 200)
    limits = replace(limits_of(app.catalog.model()), sure=0.95)
    merged = service(app, photos, replace(limits, lead=-2.0))
    apart = service(app, photos, replace(limits, lead=2.1))
    cached = VectorCache(max_vectors=len(photos))

    def query(number: int, **options: Any) -> Query:
        return Query(picture=str(number % len(photos)).encode(), k=K, **{"fold": True, **options})

    kinds: dict[str, Callable[[int], Any]] = {
        "not folded": lambda n: merged.search(query(n, fold=False, objects=False)),
        "whole": lambda n: merged.search(query(n, objects=False)),
        "objects, merged": lambda n: merged.search(query(n)),
        "objects, apart": lambda n: apart.search(query(n)),
        "objects, known": lambda n: merged.search(query(n), cached),
    }
    apart.search(query(0))
    for number in range(len(photos)):
        kinds["objects, known"](number)
    statements = {name: counted(search) for name, search in kinds.items()}
    places = Counter[str]()

    def block_of(name: str) -> Callable[[], float]:
        def run() -> float:
            before = processor_ms(app)
            for number in range(block):
                result = kinds[name](places[name] + number)
                assert bool(result.regions) == ("objects" in name), name
            places[name] += block
            return (processor_ms(app) - before) / block

        return run

    cost = measure_alternately(
        {name: block_of(name) for name in kinds}, rounds, unit="ms", warmup=WARMUP
    )
    for name in kinds:
        relative = ratio(cost[name], cost["whole"])
        report.row(
            rows=rows, kind=name, statements=statements[name], processor=cost[name],
            times_whole=relative,
        )  # fmt: skip
        if name.startswith("objects"):
            report.goal(f"{name} / whole at {rows:,}", relative, GOAL, at_least=False)


if __name__ == "__main__":
    main()
