"""Threads that read and write a catalogue without a pause and record failures and durations.

They use plain SQL on the tables that exist since migration 0002, and no code of Lookalike, so that
they can run during a migration.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import psycopg

from app.types import Vector

OTHER_STATEMENTS = (
    "SELECT dim FROM model WHERE active",
    "SELECT count(*) FROM index_build WHERE state = 'published'",
    "SELECT sku, title, price FROM product WHERE id = %(id)s",
    "SELECT product_id, uri FROM product_picture WHERE picture_id = %(id)s",
    "SELECT thumbnail FROM picture WHERE id = %(id)s",
    "SELECT count(*) FROM query_sample",
)
"""The other statements of a search; run in random order, so that locks are taken in any order."""

NEAREST = """
SELECT p.sku, e.vec <=> %(vector)s::halfvec AS distance
FROM embedding AS e
JOIN product_picture AS pp ON pp.picture_id = e.picture_id
JOIN product AS p ON p.id = pp.product_id
WHERE e.model_id = 1
ORDER BY e.vec::halfvec({dim}) <=> %(vector)s::halfvec({dim}) LIMIT 10"""


@dataclass
class Tally:
    """Number of completed operations, messages of those that failed, and the longest duration."""

    done: int = 0
    failed: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.done + other.done,
            self.failed + other.failed,
            max(self.slowest_s, other.slowest_s),
        )

    def __str__(self) -> str:
        return f"{self.done}, {len(self.failed)} failed, slowest {self.slowest_s * 1000:.0f} ms"


class LoadThread(threading.Thread):
    """Repeats one operation on its own connection until `stop` is set."""

    def __init__(self, url: str, dim: int, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._dim, self._stop_event = url, dim, stop
        self._random = random.Random(seed)
        self._vectors = np.random.default_rng(seed)
        self._numbers = count(1)
        self.tally = Tally()

    def run(self) -> None:
        with psycopg.connect(self._url) as connection:
            while not self._stop_event.is_set():
                began = time.perf_counter()
                try:
                    with connection.transaction():
                        self._once(connection)
                    self.tally.done += 1
                except psycopg.Error as exc:
                    self.tally.failed.append(" ".join(str(exc).split()))
                seconds = time.perf_counter() - began
                self.tally.slowest_s = max(self.tally.slowest_s, seconds)

    def _once(self, connection: psycopg.Connection) -> None:
        raise NotImplementedError

    def _vector(self) -> str:
        vector: Vector = self._vectors.standard_normal(self._dim).astype(np.float32)
        return "[" + ",".join(f"{value:.4f}" for value in vector / np.linalg.norm(vector)) + "]"


class SearchThread(LoadThread):
    """Reads like a search: several prepared statements in one snapshot."""

    def _once(self, connection: psycopg.Connection) -> None:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        values = {"id": self._random.randint(1, 100), "vector": self._vector()}
        statements = [*OTHER_STATEMENTS, NEAREST.format(dim=self._dim)]
        for statement in self._random.sample(statements, len(statements)):
            connection.execute(statement, values, prepare=True).fetchall()


class WriteThread(LoadThread):
    """Inserts or updates one product, its picture and its embedding."""

    def _once(self, connection: psycopg.Connection) -> None:
        number = next(self._numbers)
        values = {"sku": f"LOAD-{number % 200}", "vector": self._vector()}
        connection.execute("SELECT pg_advisory_xact_lock(7305804003)")
        connection.execute(
            "INSERT INTO product (sku, title) VALUES (%(sku)s, %(sku)s)"
            " ON CONFLICT (sku) DO UPDATE SET title = excluded.title || ' again'",
            values,
        )
        connection.execute(
            "INSERT INTO picture (sha256, width, height, thumbnail)"
            " VALUES (sha256(%(sku)s::bytea), 1, 1, '') ON CONFLICT DO NOTHING",
            values,
        )
        connection.execute(
            "INSERT INTO product_picture (product_id, picture_id, position, uri)"
            " SELECT p.id, i.id, 0, 'load.jpg' FROM product AS p, picture AS i"
            " WHERE p.sku = %(sku)s AND i.sha256 = sha256(%(sku)s::bytea) ON CONFLICT DO NOTHING",
            values,
        )
        connection.execute(
            "INSERT INTO embedding (model_id, picture_id, vec)"
            " SELECT 1, id, %(vector)s::halfvec FROM picture WHERE sha256 = sha256(%(sku)s::bytea)"
            " ON CONFLICT (picture_id, model_id) DO UPDATE SET vec = excluded.vec",
            values,
        )


@contextmanager
def under_load(url: str, dim: int, searchers: int = 3) -> Iterator[dict[str, Tally]]:
    """Runs search threads and one writer during the block; the tallies are filled when it ends."""
    stop = threading.Event()
    search_threads = [SearchThread(url, dim, seed, stop) for seed in range(searchers)]
    writer = WriteThread(url, dim, searchers, stop)
    tallies: dict[str, Tally] = {}
    for thread in (*search_threads, writer):
        thread.start()
    try:
        yield tallies
    finally:
        stop.set()
        for thread in (*search_threads, writer):
            thread.join()
        tallies["searches"] = sum((thread.tally for thread in search_threads), Tally())
        tallies["writes"] = writer.tally
