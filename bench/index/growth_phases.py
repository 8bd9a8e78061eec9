"""What is measured of one catalogue by `bench.index.growth`, in phases that can be repeated."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from sqlalchemy import text

from app.bootstrap import App
from app.catalog.batch_write import Batch
from app.catalog.entries import ProductEntry
from app.config import Settings
from app.db.engine import snapshot
from app.db.queries import index_builds, pgvector_index
from app.index.file_store import IndexFiles
from app.search.retrieval import RetrievalRequest, exact_search
from app.types import Filters, PictureData, PictureRef, Product, Query
from bench.data.catalogue import LARGE_ROWS, load_durations
from bench.data.vectors import generate_vectors
from bench.harness.processes import run, run_lookalike
from bench.search.query_kinds import K, kinds, processor_ms

DELTA_ROWS = 10_000
SEARCHES = 100
WARMUP = 20
"""Searches of each kind before those that are measured."""

EXACT_QUERIES = 10
FIRST_FILTERS = ("beige", "brown", "cream", "green", "navy")
"""Colours that are asked for the first time; each is one of twelve."""

WORDS = ("black sneakers", "red dress", "watch", "blue jeans women", "handbag")

RELATION_SIZES = """
SELECT pg_relation_size('embedding_m1') AS embeddings,
    (SELECT coalesce(sum(pg_relation_size(indexrelid)), 0) FROM pg_stat_user_indexes
        WHERE indexrelname LIKE 'embedding_m1_ivf__idx') AS pgvector,
    pg_total_relation_size('product') + pg_total_relation_size('product_picture') AS products,
    pg_total_relation_size('product_words') AS words,
    pg_total_relation_size('picture') AS pictures,
    pg_database_size(current_database()) AS database"""

Figures = dict[str, float]
"""Figures by name and unit, as "plain search, ms"."""


def load(app: App) -> Figures:
    """Durations of the load, as far as they were measured."""
    names = {
        "rows_s": "COPY of products, words and vectors, s",
        "indexes_s": "indexes of the tables, s",
        "vectors_s": "COPY of vectors, s",
        "pgvector_s": "build and measurement of pgvector's index, s",
    }
    durations = load_durations(app)
    return {names[name]: value for name, value in durations.items() if name in names}


def build(app: App) -> Figures:
    """`lookalike index rebuild`. Its processor time is without that of the server."""
    rebuild = run_lookalike("index", "rebuild", **home_of(app))
    with app.engine.connect() as connection:
        made = index_builds.usable(connection, app.catalog.model().id)[0]
    print(f"  {made.kind}, {dict(made.parameters)}", flush=True)
    return {
        "index rebuild, s": rebuild.seconds,
        "index rebuild, processor s": rebuild.processor_s,
        "index rebuild, peak MB": rebuild.peak_mb,
        "index file, MB": made.size / 1e6,
        "recall@10 of the build": made.recall_at_10 or 0.0,
    }


def opening(app: App) -> Figures:
    """Time to hash and open the index file."""
    with app.engine.connect() as connection:
        made = index_builds.usable(connection, app.catalog.model().id)[0]
    began, processor = time.perf_counter(), time.process_time()
    IndexFiles(app.settings.index_folder).open(made)
    return {
        "open the index, s": time.perf_counter() - began,
        "open the index, processor s": time.process_time() - processor,
    }


def search(app: App) -> Figures:
    """All kinds of searches, in a process of their own whose memory is measured."""
    command = [sys.executable, "-m", "bench.index.growth", "--search", str(app.settings.home)]
    searching = run(command)
    figures: Figures = json.loads(searching.output.splitlines()[-1])
    return figures | {"searching process, MB": searching.peak_mb}


def searches(app: App) -> Figures:
    """Median milliseconds of each kind of search, elapsed and of processor time, client and server
    together, after some that are discarded; and of filters that are asked for the first time."""
    figures: Figures = {}
    for name, queries in kinds(app, 10_000, SEARCHES + WARMUP).items():
        queries.run(WARMUP)
        elapsed, before = [], processor_ms(app)
        for _ in range(SEARCHES):
            elapsed.append(elapsed_ms(lambda queries=queries: queries.run(1)))
        figures[f"{name}, ms"] = float(np.median(elapsed))
        figures[f"{name}, processor ms"] = (processor_ms(app) - before) / SEARCHES
    model, vector = app.catalog.model().id, generate_vectors(1, seed=96)[0]
    of_colour = Query(vector=vector, model_id=model, k=K, fold=True)
    first = [
        elapsed_ms(
            lambda colour=colour: app.search.search(
                replace(of_colour, filters=Filters(columns={"colour": (colour,)}))
            )
        )
        for colour in FIRST_FILTERS
    ]
    figures["filter, asked the first time, ms"] = float(np.median(first))
    words = [
        elapsed_ms(
            lambda words=words: app.search.search(
                Query(words=words, words_by="catalogue", k=K, fold=True)
            )
        )
        for words in WORDS * 4
    ]
    figures["words, ms"] = float(np.median(words[len(WORDS) :]))
    return figures


def recall(app: App) -> Figures:
    """recall@10 of whole searches, and the duration of the exact scan that they are compared
    with."""
    model, found, times = app.catalog.model(), 0, []
    for vector in generate_vectors(EXACT_QUERIES, seed=98):
        rounded = vector.astype(np.float16).astype(np.float32)
        with snapshot(app.engine) as connection:
            began = time.perf_counter()
            exact = exact_search(RetrievalRequest(model, rounded, 10, connection=connection))
            times.append((time.perf_counter() - began) * 1000)
        worst = max(hit.distance for hit in exact.hits[:10])
        answer = app.search.search(Query(vector=rounded, model_id=model.id, k=10))
        found += sum((match.similarity or -1) >= 1 - worst - 1e-6 for match in answer.matches)
    return {
        "exact search, ms": float(np.median(times)),
        "recall@10 of searches": found / (10 * EXACT_QUERIES),
    }


def delta(app: App) -> Figures:
    """Searches after an update of DELTA_ROWS embeddings."""
    update = text("UPDATE embedding SET vec = vec WHERE picture_id <= :rows")
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(update, {"rows": DELTA_ROWS})
    every = kinds(app, 10_000, SEARCHES + WARMUP)
    figures: Figures = {}
    for name in ("plain", "fold"):
        every[name].run(WARMUP)
        elapsed = [elapsed_ms(lambda name=name: every[name].run(1)) for _ in range(SEARCHES)]
        figures[f"{name}, {DELTA_ROWS:,} changed embeddings, ms"] = float(np.median(elapsed))
    return figures


def writes(app: App) -> Figures:
    """Write one product with a new picture, write a batch of 64, and delete one product."""
    model, vectors = app.catalog.model(), generate_vectors(400, seed=97)
    run_name = f"{time.time_ns():x}"  # a phase that is repeated writes other products

    def batch(name: str, first: int, count: int) -> Batch:
        entries, pictures, embeddings = [], {}, {}
        for number in range(first, first + count):
            sku = f"{name}{run_name}{number}"
            sha256 = hashlib.sha256(sku.encode()).digest()
            product = Product(sku, f"written {number}", category="c1", year=2020)
            entries.append(ProductEntry(product, (PictureRef(sha256, f"{number}.jpg"),)))
            pictures[sha256] = PictureData(sha256, 480, 480, bytes(7000))
            embeddings[sha256] = vectors[number]
        return Batch(entries, pictures, embeddings)

    figures: Figures = {}

    def measure(name: str, operations: list[Callable[[], object]], products: int = 1) -> None:
        before = processor_ms(app)
        elapsed = [elapsed_ms(operation) for operation in operations]
        processor = (processor_ms(app) - before) / (len(operations) * products)
        figures[f"{name}, ms"] = float(np.median(elapsed)) / products
        figures[f"{name}, processor ms"] = processor

    one = [batch("ONE", n, 1) for n in range(30)]
    many = [batch("MANY", 30 + 64 * n, 64) for n in range(5)]
    app.catalog.write(one[0], model)
    measure("write a product", [lambda b=b: app.catalog.write(b, model) for b in one[1:]])
    measure("write a product among 64", [lambda b=b: app.catalog.write(b, model) for b in many], 64)
    skus = [b.entries[0].product.sku for b in one]
    measure("delete a product", [lambda sku=sku: app.catalog.delete([sku]) for sku in skus])
    app.catalog.delete([entry.product.sku for b in many for entry in b.entries])
    return figures


def status(app: App) -> Figures:
    """`lookalike status`, which warns here where pgvector's index is left out."""
    command = "from app.cli import main; main()"
    source = f"try:\n {command.replace('; ', chr(10) + ' ')}\nexcept SystemExit:\n pass"
    process = run([sys.executable, "-c", source, "status"], **home_of(app))
    return {"lookalike status, s": process.seconds}


def sizes(app: App) -> Figures:
    """Sizes of the tables, with their indexes, and of the database in MB."""
    with app.engine.connect() as connection:
        row = connection.execute(text(RELATION_SIZES)).one()
    return {f"{name} in PostgreSQL, MB": float(value) / 1e6 for name, value in row._mapping.items()}


def backup(app: App) -> Figures:
    """Duration and size of `lookalike backup`."""
    folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-", dir=app.settings.home))
    try:
        made = run_lookalike("backup", str(folder / "backup"), **home_of(app))
        size = sum(file.stat().st_size for file in (folder / "backup").iterdir())
    finally:
        shutil.rmtree(folder)
    return {"backup, s": made.seconds, "backup, MB": size / 1e6}


def without_a_build(app: App) -> Figures:
    """Searches by pgvector's index; nothing where the catalogue has none."""
    model = app.catalog.model().id
    with app.engine.begin() as connection:
        if pgvector_index.measured(connection, model) is None:
            return {}
        state = "UPDATE index_build SET state = :to WHERE state = :from"
        connection.execute(text(state), {"from": "published", "to": "rejected"})
    elapsed = [
        elapsed_ms(lambda v=v: app.search.search(Query(vector=v, model_id=model, k=10)))
        for v in generate_vectors(30, seed=95)
    ]
    with app.engine.begin() as connection:
        connection.execute(text(state), {"from": "rejected", "to": "published"})
    return {"search without a build, ms": float(np.median(elapsed[5:]))}


PHASES: Mapping[str, Callable[[App], Figures]] = {
    phase.__name__: phase
    for phase in (
        load, build, opening, search, recall, delta, writes, status, sizes, without_a_build, backup,
    )
}  # fmt: skip


def elapsed_ms(operation: Callable[[], object]) -> float:
    began = time.perf_counter()
    operation()
    return (time.perf_counter() - began) * 1000


def home_of(app: App) -> dict[str, str]:
    """The environment of commands on this catalogue. A large index stays out of the database, as
    documented for its size."""
    environment = {"LOOKALIKE_HOME": str(app.settings.home), "LOOKALIKE_MODEL": "embedded"}
    with app.engine.connect() as connection:
        rows = connection.execute(text("SELECT max(id) FROM product")).scalar_one()
    if rows >= LARGE_ROWS:
        environment["LOOKALIKE_INDEX_IN_DATABASE"] = "0"
    return environment


def run_searches(home: str) -> None:
    """Print the figures of `searches` as JSON; a process of its own."""
    with App(Settings(home=Path(home), model="embedded", sample_queries=False)) as app:
        print(json.dumps(searches(app)))
