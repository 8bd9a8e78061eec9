"""Cost of each operation by size of the catalogue, with an extrapolation to larger ones.

    pip install -e ".[bench]"
    python -m bench.index.growth --rows 10000 --rows 100000 --rows 1000000

The figures for ten and a hundred million products are extrapolated: the greater of the power law
and the straight line through the two largest sizes.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sqlalchemy import text

from app.bootstrap import App
from app.catalog.batch_write import Batch
from app.catalog.entries import ProductEntry
from app.config import Settings
from app.db.engine import snapshot
from app.db.queries import index_builds
from app.index.file_store import IndexFiles
from app.search.retrieval import RetrievalRequest, exact_search
from app.types import PictureData, PictureRef, Product, Query
from bench.data.catalogue import catalogue, generate_vectors, load_durations
from bench.harness.processes import run, run_lookalike
from bench.harness.side_by_side import BenchmarkReport, Measurement

EXTRAPOLATED_ROWS = (10_000_000, 100_000_000)
DELTA_ROWS = 1000
RELATION_SIZES = """
SELECT pg_relation_size('embedding_m1') AS embeddings,
    (SELECT sum(pg_relation_size(indexrelid)) FROM pg_stat_user_indexes
        WHERE indexrelname LIKE 'embedding_m1_ivf__idx') AS pgvector,
    pg_total_relation_size('product') + pg_total_relation_size('product_picture') AS products,
    pg_total_relation_size('picture') AS pictures,
    pg_database_size(current_database()) AS database"""


def measure_catalogue(app: App) -> dict[str, float]:
    """All figures of one catalogue, by name and unit, as "search, ms"."""
    with app.engine.begin() as connection:
        connection.execute(
            text("UPDATE index_build SET state = 'retired' WHERE state = 'published'")
        )
    figures = {
        "search without a build, ms": search_p50_ms(app, "pgvector"),
        "exact search, ms": exact_search_p50_ms(app),
    }
    home = {"LOOKALIKE_HOME": str(app.settings.home), "LOOKALIKE_MODEL": "embedded"}
    rebuild = run_lookalike("index", "rebuild", **home)
    figures |= {"index rebuild, s": rebuild.seconds, "index rebuild, peak MB": rebuild.peak_mb}
    figures |= measure_opening(app) | {"search, ms": search_p50_ms(app, "faiss")}
    search_process = run(
        [sys.executable, "-m", "bench.index.growth", "--serve", str(app.settings.home)]
    )
    figures |= {"search process, MB": search_process.peak_mb}
    figures |= measure_writes(app)
    figures[f"search with {DELTA_ROWS:,} changed embeddings, ms"] = search_with_delta_p50_ms(app)
    status = run_lookalike("status", **home)
    figures |= {"lookalike status, s": status.seconds} | relation_sizes(app) | measure_backup(home)
    durations = load_durations(app)
    return figures | {
        "build and measurement of pgvector's index, s": durations["pgvector_s"],
        "COPY of vectors, s": durations["vectors_s"],
    }


def search_p50_ms(app: App, path: str, searches: int = 100) -> float:
    """Median milliseconds of searches with a vector, after ten that are discarded."""
    model, times = app.catalog.model().id, []
    for number, vector in enumerate(generate_vectors(searches + 10, seed=99)):
        began = time.perf_counter()
        result = app.search.search(Query(vector=vector, model_id=model, k=10))
        if number >= 10:
            times.append((time.perf_counter() - began) * 1000)
            assert result.plan.path == path or path != "faiss", result.plan
    return float(np.median(times))


def exact_search_p50_ms(app: App) -> float:
    """Median milliseconds of the exact scan in PostgreSQL."""
    model, times = app.catalog.model(), []
    for vector in generate_vectors(7, seed=98):
        rounded = vector.astype(np.float16).astype(np.float32)
        with snapshot(app.engine) as connection:
            began = time.perf_counter()
            exact_search(RetrievalRequest(model, rounded, 10, connection=connection))
            times.append((time.perf_counter() - began) * 1000)
    return float(np.median(times[2:]))


def measure_opening(app: App) -> dict[str, float]:
    """Time to open the index file, and its size."""
    with app.engine.connect() as connection:
        build = index_builds.usable(connection, app.catalog.model().id)[0]
    began = time.perf_counter()
    IndexFiles(app.settings.index_folder).open(build)
    return {"open the index, s": time.perf_counter() - began, "index file, MB": build.size / 1e6}


def measure_writes(app: App) -> dict[str, float]:
    """Write one product with a new picture, write a batch of 64, and delete one product."""
    model, vectors = app.catalog.model(), generate_vectors(200, seed=97)

    def batch(name: str, first: int, count: int) -> Batch:
        entries, pictures, embeddings = [], {}, {}
        for number in range(first, first + count):
            sha256 = hashlib.sha256(f"{name}{number}".encode()).digest()
            product = Product(f"{name}{number}", f"written {number}", category="c1", year=2020)
            entries.append(ProductEntry(product, (PictureRef(sha256, f"{number}.jpg"),)))
            pictures[sha256] = PictureData(sha256, 480, 480, bytes(7000))
            embeddings[sha256] = vectors[number]
        return Batch(entries, pictures, embeddings)

    one = [elapsed_ms(lambda n=n: app.catalog.write(batch("ONE", n, 1), model)) for n in range(20)]
    many = elapsed_ms(lambda: app.catalog.write(batch("MANY", 20, 64), model)) / 64
    gone = [elapsed_ms(lambda n=n: app.catalog.delete([f"ONE{n}"])) for n in range(20)]
    app.catalog.delete([f"MANY{n}" for n in range(20, 84)])
    return {
        "write a product, ms": float(np.median(one)),
        "write a product in a batch of 64, ms": many,
        "delete a product, ms": float(np.median(gone)),
    }


def elapsed_ms(operation: Callable[[], object]) -> float:
    began = time.perf_counter()
    operation()
    return (time.perf_counter() - began) * 1000


def search_with_delta_p50_ms(app: App) -> float:
    """Median milliseconds of searches after an update of DELTA_ROWS embeddings."""
    with app.engine.begin() as connection:
        connection.execute(
            text("UPDATE embedding SET vec = vec WHERE picture_id <= :rows"), {"rows": DELTA_ROWS}
        )
    return search_p50_ms(app, "faiss")


def relation_sizes(app: App) -> dict[str, float]:
    """Sizes of the tables, indexes and the database in MB."""
    with app.engine.connect() as connection:
        row = connection.execute(text(RELATION_SIZES)).one()
    return {f"{name} in PostgreSQL, MB": float(value) / 1e6 for name, value in row._mapping.items()}


def measure_backup(home: Mapping[str, str]) -> dict[str, float]:
    """Duration and size of `lookalike backup`."""
    folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
    try:
        backup = run_lookalike("backup", str(folder / "backup"), **home)
        size = sum(file.stat().st_size for file in (folder / "backup").iterdir())
    finally:
        shutil.rmtree(folder)
    return {"backup, s": backup.seconds, "backup, MB": size / 1e6}


def run_search_process(home: str) -> None:
    """Search a few times; run as its own process to measure the memory of a search process."""
    with App(Settings(home=Path(home), model="embedded", sample_queries=False)) as app:
        search_p50_ms(app, "faiss", 10)


def extrapolate(sizes: Sequence[int], values: Sequence[float], rows: int) -> float:
    """Extrapolate a cost to `rows`, cautiously.

    The greater of the power law and the straight line through the last two of `sizes`, and at
    least the last value.
    """
    (n, m), (a, b) = sizes[-2:], values[-2:]
    exponent = math.log(b / a) / math.log(m / n) if a > 0 and b > 0 else 0.0
    return max(b, b * (rows / m) ** exponent, b + (b - a) * (rows - m) / (m - n))


def plot(rows: Sequence[int], figures: Mapping[str, Sequence[float]], target: Path) -> None:
    """Write a PNG with one log-log chart per unit; extrapolated values are dotted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    units = (("ms", "milliseconds"), ("s", "seconds"), ("MB", "megabytes"))
    chart, axes = pyplot.subplots(1, 3, figsize=(16, 5.5), layout="constrained")
    for axis, (unit, name) in zip(axes, units, strict=True):
        for what, values in figures.items():
            if what.rsplit(", ", 1)[1].split()[-1] != unit or "peak" in what:
                continue
            (line,) = axis.plot(
                rows, values, marker="o", markersize=4, label=what.rsplit(", ", 1)[0]
            )
            beyond = [extrapolate(rows, values, n) for n in EXTRAPOLATED_ROWS]
            axis.plot(
                [rows[-1], *EXTRAPOLATED_ROWS], [values[-1], *beyond], ":", color=line.get_color()
            )
        axis.set(xscale="log", yscale="log", xlabel="products", title=name)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    chart.suptitle("Costs by size of the catalogue; dotted: extrapolated", fontsize=12)
    target.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(target, dpi=90)


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        run_search_process(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append", help="catalogue size (repeatable)")
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    options = parser.parse_args()
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot draws with matplotlib: pip install matplotlib")
    rows = sorted(options.rows or (10_000, 100_000))
    results: dict[str, list[float]] = {}
    for size in rows:
        print(f"{size:,} products", flush=True)
        with catalogue(size, pgvector=True) as app:
            for name, value in measure_catalogue(app).items():
                results.setdefault(name, []).append(value)
                print(f"  {name}: {value:,.3g}", flush=True)
    report = BenchmarkReport("growth", "Growth")
    for name, values in results.items():
        figures: dict[str, Measurement | float | str] = {
            f"{n:,}": v for n, v in zip(rows, values, strict=True)
        }
        extrapolated = {
            f"{n:,} (extrapolated)": extrapolate(rows, values, n)
            for n in EXTRAPOLATED_ROWS
            if len(rows) > 1
        }
        report.row(**{"what": name} | figures | extrapolated)
    report.write()
    if options.plot:
        plot(rows, results, options.plot)


if __name__ == "__main__":
    main()
