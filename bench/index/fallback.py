"""What pgvector's index costs a write, and what it finds, by its kind and parameters.

    python -m bench.index.fallback [--rows 200000] [--graphs 16/64 8/32] [--lists 400 950]
        [--clusters 5000] [--vectors FILE.npy]

Each index is built over the same table and then takes rows in transactions of 64, as the catalogue
writes them; the processor time is that of the server process. Recall@10 is measured over queries
that are not in the table: with HNSW by `hnsw.ef_search`, with IVFFlat by `ivfflat.probes`.

The vectors are drawn around one common mean with a spectrum that falls as CLIP's does. With
--clusters half of the variance is that of as many centres; without, no index has much to go by.
--vectors names a file of real ones instead, (n, dim): of those a tenth, at most 200, are queries.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from app.db.embedded import server as embedded
from app.index.recall import TopK
from bench.harness.side_by_side import BenchmarkReport, Measurement

DIM = 512
MEAN_COSINE = 0.45
"""Mean cosine similarity of two pictures that have nothing in common, as under CLIP."""
DECAY = 0.8
"""The variance of the i-th direction falls as i to minus this."""
BLOCK = 20_000
BATCH, BATCHES, QUERIES, K = 64, 12, 200, 10
DEFAULT_EFFORT = 40
"""pgvector's default of `hnsw.ef_search`."""

Stored = NDArray[np.float16]


@dataclass(frozen=True)
class Kind:
    """An index: its name, its definition and the setting by which a search sets its effort."""

    name: str
    definition: str
    setting: str
    efforts: tuple[int, ...]


def graph(parameters: str, efforts: list[int]) -> Kind:
    """An HNSW index with "m/ef_construction"."""
    m, construction = map(int, parameters.split("/"))
    return Kind(
        f"HNSW {parameters}",
        f"USING hnsw (vec halfvec_cosine_ops) WITH (m = {m}, ef_construction = {construction})",
        "hnsw.ef_search",
        (DEFAULT_EFFORT, *efforts),
    )


def inverted_lists(lists: int, probes: list[int]) -> Kind:
    """An IVFFlat index."""
    return Kind(
        f"IVFFlat {lists}",
        f"USING ivfflat (vec halfvec_cosine_ops) WITH (lists = {lists})",
        "ivfflat.probes",
        tuple(n for n in probes if n <= lists),
    )


def drawn(rows: int, seed: int, clusters: int) -> Stored:
    """Unit vectors (rows, DIM) with a common mean and a falling spectrum, around `clusters`
    centres if there are any; the centres do not depend on `seed`."""
    scale = np.arange(1, DIM + 1, dtype=np.float32) ** (-DECAY / 2)
    scale *= np.sqrt(1 / MEAN_COSINE - 1) / np.linalg.norm(scale)
    centres = np.random.default_rng(10**6).standard_normal((clusters, DIM), np.float32)
    random, vectors = np.random.default_rng(seed), np.empty((rows, DIM), np.float16)
    for start in range(0, rows, BLOCK):
        block = random.standard_normal((min(BLOCK, rows - start), DIM), np.float32)
        if clusters:
            block = (block + centres[random.integers(0, clusters, len(block))]) / 2**0.5
        block *= scale
        block[:, -1] += 1.0
        vectors[start : start + BLOCK] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def nearest(parts: list[Stored], queries: Stored) -> NDArray[np.int64]:
    """The exact K nearest of each query among the rows of all parts, (queries, K)."""
    best, first, asked = TopK(len(queries), K), 0, queries.astype(np.float32)
    for part in parts:
        for start in range(0, len(part), BLOCK):
            block = part[start : start + BLOCK].astype(np.float32)
            best.offer(asked @ block.T, np.arange(first, first + len(block)))
            first += len(block)
    return best.answers().ids


def server_cpu_s(connection: psycopg.Connection) -> float:
    """Seconds of processor time of the connection's server process."""
    spent = Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()
    return int(spent[0]) / 1e9


def load(connection: psycopg.Connection, vectors: Stored, first: int) -> None:
    """Add rows by COPY, numbered from `first`."""
    with connection.cursor().copy("COPY fallback FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["int8", "halfvec"])
        for number, vector in enumerate(vectors, first):
            copy.write_row((number, HalfVector(vector)))


def recall(
    connection: psycopg.Connection, kind: Kind, effort: int, queries: Stored,
    expected: NDArray[np.int64],
) -> tuple[float, float]:  # fmt: skip
    """Recall@K with an effort, and milliseconds of processor time a query."""
    connection.execute(f"SET {kind.setting} = {effort}")
    connection.execute("SET enable_seqscan = off")
    found, before = 0, server_cpu_s(connection)
    for query, wanted in zip(queries, expected, strict=True):
        rows = connection.execute(
            "SELECT id FROM fallback ORDER BY vec <=> %s LIMIT %s", (HalfVector(query), K)
        ).fetchall()
        found += len({row[0] for row in rows} & set(wanted.tolist()))
    spent = server_cpu_s(connection) - before
    return found / expected.size, 1000 * spent / len(queries)


def measure(
    report: BenchmarkReport, connection: psycopg.Connection, kind: Kind,
    stored: Stored, added: Stored, queries: Stored,
) -> None:  # fmt: skip
    """Build the index, add rows to it, search it and drop it; leaves the table as it was."""
    before = server_cpu_s(connection)
    connection.execute(f"CREATE INDEX fallback_vec ON fallback {kind.definition}")
    build_s = server_cpu_s(connection) - before
    [size] = connection.execute("SELECT pg_relation_size('fallback_vec')").fetchone() or [0]
    connection.execute("CHECKPOINT")
    insert_ms = []
    for start in range(0, BATCH * BATCHES, BATCH):
        before = server_cpu_s(connection)
        with connection.transaction():
            load(connection, added[start : start + BATCH], len(stored) + start)
        insert_ms.append(1000 * (server_cpu_s(connection) - before) / BATCH)
    expected = nearest([stored, added], queries)
    for effort in kind.efforts:
        share, query_ms = recall(connection, kind, effort, queries, expected)
        report.row(index=kind.name, build_cpu_s=round(build_s, 1), index_mb=round(size / 1e6),
                   insert_cpu=Measurement(tuple(insert_ms), "ms a row"), effort=effort,
                   recall_at_10=round(share, 4), query_cpu_ms=round(query_ms, 2))  # fmt: skip
    connection.execute("DROP INDEX fallback_vec")
    connection.execute("DELETE FROM fallback WHERE id >= %s", (len(stored),))


def read(file: Path) -> tuple[Stored, Stored, Stored]:
    """The vectors of a file in random order: to store, to add and to ask with."""
    vectors = np.load(file).astype(np.float16)
    vectors = vectors[np.random.default_rng(0).permutation(len(vectors))]
    asked = min(QUERIES, len(vectors) // 10)
    stored, added = np.split(vectors[asked:], [-min(BATCH * BATCHES, len(vectors) // 4)])
    return stored, added, vectors[:asked]


@contextmanager
def server() -> Iterator[psycopg.Connection]:
    """A connection to a server of its own."""
    with TemporaryDirectory() as home:
        url = embedded.start(Path(home))
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                register_vector(connection)
                yield connection
        finally:
            embedded.stop(Path(home))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--clusters", type=int, default=0)
    parser.add_argument("--graphs", nargs="*", default=["16/64", "8/32"], help="m/ef_construction")
    parser.add_argument("--efforts", type=int, nargs="*", default=[100, 200, 400])
    parser.add_argument("--lists", type=int, nargs="*", default=[400, 950])
    parser.add_argument("--probes", type=int, nargs="*", default=[1, 5, 10, 20, 40, 80, 160])
    parser.add_argument("--vectors", type=Path, help="a file of numpy, (n, dim)")
    options = parser.parse_args()
    if options.vectors:
        stored, added, queries = read(options.vectors)
    else:
        stored, added, queries = (
            drawn(rows, seed, options.clusters)
            for seed, rows in enumerate((options.rows, BATCH * BATCHES, QUERIES))
        )
    report = BenchmarkReport("fallback", "What pgvector's index costs a write, and what it finds")
    kinds = [graph(each, options.efforts) for each in options.graphs]
    kinds += [inverted_lists(each, options.probes) for each in options.lists]
    with server() as connection:
        memory_mb = 300 + len(stored) * 2 * (2 * stored.shape[1] + 750) // 10**6
        connection.execute(f"SET maintenance_work_mem = '{memory_mb}MB'")
        connection.execute("SET max_parallel_maintenance_workers = 0")
        connection.execute(f"CREATE TABLE fallback (id int8, vec halfvec({stored.shape[1]}))")
        load(connection, stored, 0)
        connection.execute("VACUUM ANALYZE fallback")
        for kind in kinds:
            measure(report, connection, kind, stored, added, queries)
    report.write()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
