"""What each operation costs as the catalogue grows, and what it will cost beyond what was measured.

    pip install -e ".[bench]"
    python -m bench.index.growth --rows 10000 --rows 100000 --rows 1000000

The lines to ten and a hundred million are computed: the greater of the power law and the straight
line through the two largest sizes.
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
from pathlib import Path

import numpy as np
from sqlalchemy import text

from app.bootstrap import App
from app.catalog.batch_write import Batch, ProductEntry
from app.config import Settings
from app.db.engine import snapshot
from app.db.queries import index_builds
from app.index.file_store import IndexFiles
from app.search.retrieval import RetrievalRequest, exact_search
from app.types import PictureData, PictureRef, Product, Query
from bench.data.catalogue import catalogue, drawn, filling
from bench.harness.processes import lookalike, run
from bench.harness.side_by_side import Report, Sample

BEYOND = (10_000_000, 100_000_000)
DELTA = 1000
SIZES = """
SELECT pg_relation_size('embedding_m1') AS embeddings,
    pg_relation_size('embedding_m1_vec_idx') AS hnsw,
    pg_total_relation_size('product') + pg_total_relation_size('product_picture') AS products,
    pg_total_relation_size('picture') AS pictures,
    pg_database_size(current_database()) AS database"""


def measured(app: App) -> dict[str, float]:
    """Every figure of one size, by its name with its unit."""
    with app.engine.begin() as connection:
        connection.execute(
            text("UPDATE index_build SET state = 'retired' WHERE state = 'published'")
        )
    found = {
        "search without a build, ms": asked(app, "pgvector-hnsw"),
        "exact search, ms": exactly(app),
    }
    home = {"LOOKALIKE_HOME": str(app.settings.home), "LOOKALIKE_MODEL": "embedded"}
    rebuilt = lookalike("index", "rebuild", **home)
    found |= {"index rebuild, s": rebuilt.seconds, "index rebuild, peak MB": rebuilt.peak_mb}
    found |= opened(app) | {"search, ms": asked(app, "faiss")}
    serving = run([sys.executable, "-m", "bench.index.growth", "--serve", str(app.settings.home)])
    found |= {"a process that searches, MB": serving.peak_mb}
    found |= written(app)
    found[f"search with {DELTA:,} changed, ms"] = changed(app)
    looked = lookalike("status", **home)
    found |= {"lookalike status, s": looked.seconds} | sizes(app) | backed_up(home)
    figures = filling(app)
    return found | {
        "pgvector's index, s": figures["hnsw_s"],
        "COPY of vectors, s": figures["vectors_s"],
    }


def asked(app: App, path: str, times: int = 100) -> float:
    """The median of searches with a vector, in ms."""
    model, took = app.catalog.model().id, []
    for number, vector in enumerate(drawn(times + 10, seed=99)):
        began = time.perf_counter()
        found = app.search.search(Query(vector=vector, model_id=model, k=10))
        if number >= 10:
            took.append((time.perf_counter() - began) * 1000)
            assert found.plan.path == path or path not in ("faiss",), found.plan
    return float(np.median(took))


def exactly(app: App) -> float:
    model, took = app.catalog.model(), []
    for vector in drawn(7, seed=98):
        rounded = vector.astype(np.float16).astype(np.float32)
        with snapshot(app.engine) as connection:
            began = time.perf_counter()
            exact_search(RetrievalRequest(connection, model, rounded, 10))
            took.append((time.perf_counter() - began) * 1000)
    return float(np.median(took[2:]))


def opened(app: App) -> dict[str, float]:
    """From the file to an index that answers."""
    with app.engine.connect() as connection:
        build = index_builds.usable(connection, app.catalog.model().id)[0]
    began = time.perf_counter()
    IndexFiles(app.settings.index_folder).open(build)
    return {"open the index, s": time.perf_counter() - began, "index file, MB": build.size / 1e6}


def written(app: App) -> dict[str, float]:
    """One product with a new picture, a batch of 64, and deleting one."""
    model, vectors = app.catalog.model(), drawn(200, seed=97)

    def batch(name: str, first: int, count: int) -> Batch:
        entries, pictures, found = [], {}, {}
        for number in range(first, first + count):
            sha256 = hashlib.sha256(f"{name}{number}".encode()).digest()
            product = Product(f"{name}{number}", f"written {number}", category="c1", year=2020)
            entries.append(ProductEntry(product, (PictureRef(sha256, f"{number}.jpg"),)))
            pictures[sha256] = PictureData(sha256, 480, 480, bytes(7000))
            found[sha256] = vectors[number]
        return Batch(entries, pictures, found)

    one = [timed(lambda n=n: app.catalog.write(batch("ONE", n, 1), model)) for n in range(20)]
    many = timed(lambda: app.catalog.write(batch("MANY", 20, 64), model)) / 64
    gone = [timed(lambda n=n: app.catalog.delete([f"ONE{n}"])) for n in range(20)]
    app.catalog.delete([f"MANY{n}" for n in range(20, 84)])
    return {
        "write a product, ms": float(np.median(one)),
        "write a product among 64, ms": many,
        "delete a product, ms": float(np.median(gone)),
    }


def timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return (time.perf_counter() - began) * 1000


def changed(app: App) -> float:
    with app.engine.begin() as connection:
        connection.execute(
            text("UPDATE embedding SET vec = vec WHERE picture_id <= :rows"), {"rows": DELTA}
        )
    return asked(app, "faiss")


def sizes(app: App) -> dict[str, float]:
    with app.engine.connect() as connection:
        row = connection.execute(text(SIZES)).one()
    return {f"{name} in PostgreSQL, MB": value / 1e6 for name, value in row._mapping.items()}


def backed_up(home: Mapping[str, str]) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
    try:
        made = lookalike("backup", str(folder / "made"), **home)
        size = sum(file.stat().st_size for file in (folder / "made").iterdir())
    finally:
        shutil.rmtree(folder)
    return {"backup, s": made.seconds, "backup, MB": size / 1e6}


def serve(home: str) -> None:
    """A process that only searches, for its memory."""
    with App(Settings(home=Path(home), model="embedded", sample_queries=False)) as app:
        asked(app, "faiss", 10)


def beyond(sizes: Sequence[int], values: Sequence[float], rows: int) -> float:
    """At so many rows: the greater of the power law and the straight line through the two largest
    sizes, for who plans is better too careful; never less than the last."""
    (n, m), (a, b) = sizes[-2:], values[-2:]
    power = math.log(b / a) / math.log(m / n) if a > 0 and b > 0 else 0.0
    return max(b, b * (rows / m) ** power, b + (b - a) * (rows - m) / (m - n))


def plot(rows: Sequence[int], found: Mapping[str, Sequence[float]], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = (("ms", "milliseconds"), ("s", "seconds"), ("MB", "megabytes"))
    figure, axes = pyplot.subplots(1, 3, figsize=(16, 5.5), layout="constrained")
    for axis, (unit, name) in zip(axes, kinds, strict=True):
        for what, values in found.items():
            if what.rsplit(", ", 1)[1].split()[-1] != unit or "peak" in what:
                continue
            (line,) = axis.plot(
                rows, values, marker="o", markersize=4, label=what.rsplit(", ", 1)[0]
            )
            further = [beyond(rows, values, n) for n in BEYOND]
            axis.plot([rows[-1], *BEYOND], [values[-1], *further], ":", color=line.get_color())
        axis.set(xscale="log", yscale="log", xlabel="products", title=name)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.suptitle("What it costs as the catalogue grows; dotted: computed", fontsize=12)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=90)


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--plot", type=Path)
    words = parser.parse_args()
    rows = sorted(words.rows or (10_000, 100_000))
    every: dict[str, list[float]] = {}
    for size in rows:
        print(f"{size:,} products", flush=True)
        with catalogue(size, hnsw=True) as app:
            for name, value in measured(app).items():
                every.setdefault(name, []).append(value)
                print(f"  {name}: {value:,.3g}", flush=True)
    report = Report("growth", "Growth")
    for name, values in every.items():
        figures: dict[str, Sample | float | str] = {
            f"{n:,}": v for n, v in zip(rows, values, strict=True)
        }
        computed = {f"{n:,} (computed)": beyond(rows, values, n) for n in BEYOND if len(rows) > 1}
        report.row(**{"what": name} | figures | computed)
    if words.plot:
        plot(rows, every, words.plot)
    report.write()


if __name__ == "__main__":
    main()
