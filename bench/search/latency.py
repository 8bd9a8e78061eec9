"""How long one search takes, from the bytes of a photo to the result, stage by stage.

    python -m bench.search.latency --rows 100000
    python -m bench.search.latency --catalogue photos/catalogue.csv --queries photos/queries.csv

Warm: one process, one photo after the other, beside the encoder alone on the same photos. Cold:
the first search of a new process, with its imports, its connections, the encoder and the index.
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
from app.images.decoding import decode
from app.types import Query
from bench.data.catalogue import catalogue
from bench.harness.processes import run
from bench.harness.side_by_side import Report, Sample, ratio
from ingest.demo import draw_catalogue
from ingest.load import load

STAGES = ("decode", "encode", "search", "details", "total")
GOALS = {100_000: 3.0, 1_000_000: 5.0}
"""Milliseconds that the median of search and details together should stay below, by rows."""
COLD = 3


def warm(app: App, photos: list[bytes], report: Report) -> dict[str, Sample]:
    """Milliseconds of each stage over all photos, and of the encoder alone."""
    encoder, ms = app.encoder(), {name: [] for name in (*STAGES, "encoder alone", "found")}
    for number, photo in enumerate([*photos[:10], *photos]):
        picture = decode(photo, app.limits, at_least=encoder.input_side)
        began = time.perf_counter()
        encoder.encode_pictures([picture])
        alone = (time.perf_counter() - began) * 1000
        found = app.search.search(Query(picture=photo, k=10)).plan
        if number < 10:
            continue
        assert found.path == "faiss", found
        for stage in STAGES:
            ms[stage].append(found.ms[stage])
        ms["encoder alone"].append(alone)
        ms["found"].append(found.ms["search"] + found.ms["details"])
    samples = {name: Sample(tuple(values), "ms") for name, values in ms.items()}
    for name, sample in samples.items():
        shown = "search and details" if name == "found" else name
        report.row(stage=shown, p50_ms=sample.p50, p95_ms=sample.at(95), p99_ms=sample.at(99))
    beside = ratio(samples["total"], samples["encoder alone"])
    report.row(stage="whole search / encoder alone", p50_ms=beside.p50,
               p95_ms=beside.at(95), p99_ms=beside.at(99))  # fmt: skip
    return samples


def cold(app: App, photo: Path, report: Report) -> None:
    """The first search of new processes; the files are in the system's cache."""
    command = [
        sys.executable,
        "-m",
        "bench.search.latency",
        "--cold",
        str(app.settings.home),
        str(photo),
    ]
    runs = [json.loads(run(command).printed.splitlines()[-1]) for _ in range(COLD)]
    for stage in ("import", "load", *STAGES):
        values = [found[stage] for found in runs]
        report.row(stage=f"cold: {stage}", p50_ms=float(np.median(values)), p95_ms=max(values))


def first_search(home: str, photo: str) -> dict[str, float]:
    """One search in this process, which did nothing before."""
    began = time.perf_counter()
    with App(Settings(home=Path(home), model="embedded", sample_queries=False)) as app:
        found = app.search.search(Query(picture=Path(photo).read_bytes(), k=10)).plan
    return found.ms | {"whole": (time.perf_counter() - began) * 1000}


@contextmanager
def ingested(source: Path) -> Iterator[App]:
    """A real catalogue in a database of its own."""
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as home:
        from app.db.embedded import server as embedded_server

        settings = Settings(home=Path(home), model="embedded", sample_queries=False)
        try:
            with App(settings) as app:
                app.initialise()
                load(app.engine, app.catalog, app.encoders, app.limits, source)
                yield app
        finally:
            embedded_server.stop(Path(home))


def photos_of(queries: Path) -> list[Path]:
    with queries.open(encoding="utf-8", newline="") as file:
        return [queries.parent / row["query"] for row in csv.DictReader(file)]


def drawn_photos() -> list[Path]:
    """Photos of the demo; what they find among drawn vectors means nothing."""
    folder = Path(tempfile.gettempdir(), "lookalike-bench-demo")
    folder.mkdir(exist_ok=True)
    draw_catalogue(folder)
    return photos_of(folder / "queries.csv")


def measure(app: App, paths: list[Path], report: Report, rows: int, repeat: int) -> None:
    app.indexer.rebuild()
    found = warm(app, [path.read_bytes() for path in paths] * repeat, report)["found"]
    if rows in GOALS:
        report.goal("search and details, p50 in ms", found, GOALS[rows], at_least=False)
    cold(app, paths[0], report)
    report.write()


def main() -> None:
    if sys.argv[1:2] == ["--cold"]:
        imported = time.process_time() * 1000
        print(json.dumps(first_search(*sys.argv[2:]) | {"import": imported}))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--catalogue", type=Path)
    parser.add_argument("--queries", type=Path)
    words = parser.parse_args()
    if words.catalogue:
        paths = photos_of(words.queries)
        with ingested(words.catalogue) as app:
            name = words.catalogue.parent.name
            report = Report(f"latency_{name}", f"One search, {name} photos")
            measure(app, paths, report, 0, 2)
        return
    report = Report(f"latency_{words.rows}", f"One search, {words.rows:,} products")
    with catalogue(words.rows, hnsw=True) as app:
        measure(app, drawn_photos(), report, words.rows, 10)


if __name__ == "__main__":
    main()
