"""Threads that read and write a catalogue without a pause, and note what failed and what was slow.

They know the tables as every migration since 0002 has them, and no code of Lookalike's: so they can
run while the database changes under them.
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

PARTS = (
    "SELECT dim FROM model WHERE active",
    "SELECT count(*) FROM index_build WHERE state = 'published'",
    "SELECT sku, title, price FROM product WHERE id = %(id)s",
    "SELECT product_id, uri FROM product_picture WHERE picture_id = %(id)s",
    "SELECT thumbnail FROM picture WHERE id = %(id)s",
    "SELECT count(*) FROM query_sample",
)
"""What else a search reads; in any order, so that locks are taken in any order."""

NEAREST = """
SELECT p.sku, e.vec <=> %(vector)s::halfvec AS distance
FROM embedding AS e
JOIN product_picture AS pp ON pp.picture_id = e.picture_id
JOIN product AS p ON p.id = pp.product_id
WHERE e.model_id = 1
ORDER BY e.vec::halfvec({dim}) <=> %(vector)s::halfvec({dim}) LIMIT 10"""


@dataclass
class Tally:
    """How many times something was done, what failed, and the longest it took in seconds."""

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


class Load(threading.Thread):
    """Does one thing over and over, on a connection of its own, until told to stop."""

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
                took = time.perf_counter() - began
                self.tally.slowest_s = max(self.tally.slowest_s, took)

    def _once(self, connection: psycopg.Connection) -> None:
        raise NotImplementedError

    def _vector(self) -> str:
        drawn: Vector = self._vectors.standard_normal(self._dim).astype(np.float32)
        return "[" + ",".join(f"{value:.4f}" for value in drawn / np.linalg.norm(drawn)) + "]"


class Searcher(Load):
    """Reads as a search does: several statements in one snapshot, prepared once."""

    def _once(self, connection: psycopg.Connection) -> None:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        values = {"id": self._random.randint(1, 100), "vector": self._vector()}
        parts = [*PARTS, NEAREST.format(dim=self._dim)]
        for part in self._random.sample(parts, len(parts)):
            connection.execute(part, values, prepare=True).fetchall()


class Writer(Load):
    """Writes one product, its picture and its embedding, or changes them."""

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
    """Searchers and one writer while the block runs; the tallies are complete when it ends."""
    stop = threading.Event()
    reading = [Searcher(url, dim, seed, stop) for seed in range(searchers)]
    writing = Writer(url, dim, searchers, stop)
    tallies: dict[str, Tally] = {}
    for thread in (*reading, writing):
        thread.start()
    try:
        yield tallies
    finally:
        stop.set()
        for thread in (*reading, writing):
            thread.join()
        tallies["searches"] = sum((each.tally for each in reading), Tally())
        tallies["writes"] = writing.tally
