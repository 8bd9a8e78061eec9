"""Latency of the page's search by stage: from the bytes of a photo to 12 products, folded.

    python -m bench.search.latency --rows 100000
    python -m bench.search.latency --catalogue photos/catalogue.csv --queries photos/queries.csv

Warm: one photo after the other in one process, compared with the encoder alone on the same photos.
Cold: the first search of a new process, with imports, connections, loading the encoder and index.
On a real catalogue photos are searched by their objects too, as on the page; among generated
vectors, which no photo resembles, each photo would be.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.images.decoding import decode
from app.types import Query
from bench.data.catalogue import catalogue
from bench.harness.processes import run
from bench.harness.side_by_side import BenchmarkReport, Measurement, ratio
from ingest.demo import draw_catalogue
from ingest.load import load

STAGES = ("decode", "encode", "objects", "search", "details", "total")
GOALS = {100_000: 3.0, 1_000_000: 5.0}
"""Maximum p50 of search and details together in milliseconds, by rows."""
COLD_RUNS = 3


def page_query(photo: bytes, *, objects: bool) -> Query:
    """The query of the page for a photo."""
    return Query(picture=photo, k=12, fold=True, objects=objects)


def measure_warm(
    app: App, photos: list[bytes], report: BenchmarkReport, *, objects: bool
) -> dict[str, Measurement]:
    """Milliseconds of each stage over all photos, and of the encoder alone."""
    encoder = app.encoder()
    ms: dict[str, list[float]] = {
        name: [] for name in (*STAGES, "encoder alone", "search and details")
    }
    for number, photo in enumerate([*photos[:10], *photos]):
        picture = decode(photo, app.limits, at_least=encoder.input_side)
        began = time.perf_counter()
        encoder.encode_pictures([picture])
        alone = (time.perf_counter() - began) * 1000
        plan = app.search.search(page_query(photo, objects=objects)).plan
        if number < 10:
            continue  # warm-up
        assert plan.path == "faiss", plan
        for stage in STAGES:
            ms[stage].append(plan.ms.get(stage, 0.0))
        ms["encoder alone"].append(alone)
        ms["search and details"].append(plan.ms["search"] + plan.ms["details"])
    samples = {name: Measurement(tuple(values), "ms") for name, values in ms.items()}
    for name, sample in samples.items():
        report.row(stage=name, p50_ms=sample.p50, p95_ms=sample.at(95), p99_ms=sample.at(99))
    relative = ratio(samples["total"], samples["encoder alone"])
    report.row(stage="whole search / encoder alone", p50_ms=relative.p50,
               p95_ms=relative.at(95), p99_ms=relative.at(99))  # fmt: skip
    return samples


def measure_cold(app: App, photo: Path, report: BenchmarkReport) -> None:
    """The first search of new processes; the files are in the page cache."""
    command = [
        sys.executable,
        "-m",
        "bench.search.latency",
        "--cold",
        str(app.settings.home),
        str(photo),
    ]
    runs = [json.loads(run(command).output.splitlines()[-1]) for _ in range(COLD_RUNS)]
    for stage in ("import", "load", *STAGES):
        values = [times.get(stage, 0.0) for times in runs]
        report.row(stage=f"cold: {stage}", p50_ms=float(np.median(values)), p95_ms=max(values))


def first_search(home: str, photo: str) -> dict[str, float]:
    """Milliseconds of the first search in this process, by stage."""
    began = time.perf_counter()
    with App(Settings(home=Path(home), model="embedded", sample_queries=False)) as app:
        plan = app.search.search(page_query(Path(photo).read_bytes(), objects=True)).plan
    return plan.ms | {"whole": (time.perf_counter() - began) * 1000}


@contextmanager
def ingested_catalogue(source: Path) -> Iterator[App]:
    """A real catalogue, ingested into a new database; deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as home:
        settings = Settings(home=Path(home), model="embedded", sample_queries=False)
        try:
            with App(settings) as app:
                app.initialise()
                load(app.engine, app.catalog, app.encoders, app.limits, source)
                yield app
        finally:
            embedded_server.stop(Path(home))


def query_photos(queries: Path) -> list[Path]:
    """The photos in the column `query` of a CSV."""
    with queries.open(encoding="utf-8", newline="") as file:
        return [queries.parent / row["query"] for row in csv.DictReader(file)]


def demo_photos() -> list[Path]:
    """Query photos of the demo, for their latency: their matches are generated vectors."""
    folder = Path(tempfile.gettempdir(), "lookalike-bench-demo")
    folder.mkdir(exist_ok=True)
    draw_catalogue(folder)
    return query_photos(folder / "queries.csv")


def measure(app: App, paths: list[Path], report: BenchmarkReport, rows: int, repeat: int) -> None:
    """Measure warm and cold searches of `paths`, the warm ones `repeat` times."""
    app.indexer.rebuild()
    photos = [path.read_bytes() for path in paths] * repeat
    samples = measure_warm(app, photos, report, objects=not rows)
    if rows in GOALS:
        search = samples["search and details"]
        report.goal("search and details, p50 in ms", search, GOALS[rows], at_least=False)
    measure_cold(app, paths[0], report)
    report.write()


def main() -> None:
    if sys.argv[1:2] == ["--cold"]:
        imported = time.process_time() * 1000
        print(json.dumps(first_search(*sys.argv[2:]) | {"import": imported}))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--catalogue", type=Path, help="CSV of a real catalogue")
    parser.add_argument("--queries", type=Path, help="CSV of its query photos")
    options = parser.parse_args()
    if options.catalogue:
        paths = query_photos(options.queries)
        with ingested_catalogue(options.catalogue) as app:
            name = options.catalogue.parent.name
            report = BenchmarkReport(f"latency_{name}", f"One search, {name} photos")
            measure(app, paths, report, 0, 2)
        return
    report = BenchmarkReport(f"latency_{options.rows}", f"One search, {options.rows:,} products")
    with catalogue(options.rows, titled=True) as app:
        measure(app, demo_photos(), report, options.rows, 10)


if __name__ == "__main__":
    main()
