"""Freshness as a state machine: searches are exact in every interleaving of writers and builds.

Writers hold transactions open, builds read now and are published later, searchers open their
snapshot now and ask later; hypothesis chooses what happens next, and numpy judges each search.
HORIZON_EXAMPLES and HORIZON_STEPS make it longer; HORIZON_ONCE stops at the first failure found.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.bootstrap import App
from app.db.engine import snapshot
from app.db.queries import index_builds
from app.index import faiss_index
from app.index.embedding_reader import EmbeddingSnapshot, read_embeddings
from app.search.planner import find
from app.search.retrieval import RetrievalRequest
from support.snapshots import Rows, at_once_with_newest, differences, quick_snapshot, read

DIM = 49
WRITERS = 3
AT_FIRST = 50
"""Products at the start: more than a search fetches first, so that cutoffs matter."""

DIRECTIONS = st.integers(0, 60)
"""Few enough that equal vectors, and so ties, are common."""
PLACES = st.integers(0, 80)
WRITER = st.integers(0, WRITERS - 1)

# A writer that would wait for another would wait for ever: one thread plays them all.
IMPATIENT = "-c lock_timeout=50ms"
LOST = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.SerializationFailure,
    psycopg.errors.IntegrityError,
)

INSERT = """
WITH p AS (INSERT INTO product (sku) SELECT unnest(%(skus)s::text[]) RETURNING id, sku),
pic AS (INSERT INTO picture (sha256, width, height, thumbnail)
    SELECT sha256(unnest(%(skus)s::text[])::bytea), 1, 1, '' RETURNING id, sha256)
INSERT INTO product_picture SELECT p.id, pic.id, 0, '' FROM p JOIN pic
    ON pic.sha256 = sha256(p.sku::bytea) RETURNING picture_id"""

# The stamps the statements give are lies, as those of a dump may be: the trigger must win.
EMBED = """INSERT INTO embedding (model_id, picture_id, vec, changed_in)
SELECT 1, picture, vec::halfvec, '3' FROM unnest(%s::bigint[], %s::text[]) AS new (picture, vec)"""

PICK = """SELECT picture_id FROM embedding ORDER BY picture_id
OFFSET (SELECT %s %% greatest(count(*), 1) FROM embedding) LIMIT 1 FOR UPDATE SKIP LOCKED"""

AGAIN = "UPDATE embedding SET vec = %s::halfvec, changed_in = '3' WHERE picture_id = %s"

SHARE = """WITH p AS (INSERT INTO product (sku) VALUES (%s) RETURNING id)
INSERT INTO product_picture SELECT p.id, %s, 0, '' FROM p"""

DELETE = """WITH gone AS (DELETE FROM product WHERE id IN (
    SELECT product_id FROM product_picture WHERE picture_id = %(picture)s))
DELETE FROM embedding WHERE picture_id = %(picture)s"""

UPDATE = """UPDATE product SET year = coalesce(year, 2000) + 1 WHERE id = (
    SELECT product_id FROM product_picture WHERE picture_id = %s ORDER BY product_id LIMIT 1)"""

CLEAN = "TRUNCATE product, picture, embedding, index_build RESTART IDENTITY CASCADE"


def direction(seed: int) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal(DIM)
    return (found / np.linalg.norm(found)).astype(np.float16).astype(np.float32)


def literal(seed: int) -> str:
    return str(direction(seed).tolist())


@dataclass
class Writer:
    """A connection, with its open transaction and savepoints if there are any."""

    connection: psycopg.Connection
    savepoints: list[str] = field(default_factory=list)
    busy: bool = False

    def begin(self, level: str) -> None:
        self.connection.execute(f"BEGIN ISOLATION LEVEL {level}")  # type: ignore[call-overload]
        self.busy = True

    def end(self, how: str) -> None:
        self.connection.execute(how)  # type: ignore[call-overload]
        self.savepoints.clear()
        self.busy = False

    def attempt(self, work: Callable[[psycopg.Connection], None]) -> None:
        """Run an operation in a transaction that stays open, unless it lost a conflict."""
        if not self.busy:
            self.begin("READ COMMITTED")
        try:
            work(self.connection)
        except LOST:
            self.end("ROLLBACK")


@dataclass
class Searcher:
    """An open snapshot, with the rows that numpy read in it."""

    context: AbstractContextManager[Connection]
    connection: Connection
    rows: Rows


class Horizon(RuleBasedStateMachine):
    """Operations on a catalogue, in any order."""

    def __init__(self, app: App, url: str, paths: Counter[str]) -> None:
        super().__init__()
        self.paths = paths
        self.app = app
        self.model = app.catalog.model()
        self.writers = [
            Writer(psycopg.connect(url, autocommit=True, options=IMPATIENT)) for _ in range(WRITERS)
        ]
        self.last_seed = 0
        self.contents: list[EmbeddingSnapshot] = []
        self.searchers: list[Searcher] = []

    @initialize()
    def some_products(self) -> None:
        self.writers[0].connection.execute(CLEAN)
        self.write_products(self.writers[0].connection, list(range(AT_FIRST)))
        self.build_and_publish()

    def teardown(self) -> None:
        for searcher in self.searchers:
            searcher.context.__exit__(None, None, None)
        for writer in self.writers:
            writer.connection.close()

    # Writers

    @rule(n=WRITER, level=st.sampled_from(["READ COMMITTED", "REPEATABLE READ"]))
    def begin(self, n: int, level: str) -> None:
        if not self.writers[n].busy:
            self.writers[n].begin(level)

    @rule(n=WRITER, seeds=st.lists(DIRECTIONS, min_size=1, max_size=20))
    def insert(self, n: int, seeds: list[int]) -> None:
        self.last_seed = seeds[0]
        self.writers[n].attempt(lambda connection: self.write_products(connection, seeds))

    @rule(n=WRITER, place=PLACES)
    def share_a_picture(self, n: int, place: int) -> None:
        self.to_one(n, place, lambda c, picture: c.execute(SHARE, [uuid4().hex, picture]))

    @rule(n=WRITER, places=st.lists(PLACES, min_size=1, max_size=20), seed=DIRECTIONS)
    def embed_again(self, n: int, places: list[int], seed: int) -> None:
        self.last_seed = seed
        for step, place in enumerate(places):
            vector = literal(seed + step)
            self.to_one(n, place, lambda c, picture, v=vector: c.execute(AGAIN, [v, picture]))

    @rule(n=WRITER, places=st.lists(PLACES, min_size=1, max_size=20))
    def delete(self, n: int, places: list[int]) -> None:
        for place in places:
            self.to_one(n, place, lambda c, picture: c.execute(DELETE, {"picture": picture}))

    @rule(n=WRITER, place=PLACES)
    def update_product(self, n: int, place: int) -> None:
        self.to_one(n, place, lambda c, picture: c.execute(UPDATE, [picture]))

    @rule(n=WRITER)
    def savepoint(self, n: int) -> None:
        writer = self.writers[n]
        if writer.busy:
            writer.savepoints.append(f"s{len(writer.savepoints)}")
            writer.connection.execute(f"SAVEPOINT {writer.savepoints[-1]}")

    @rule(n=WRITER)
    def roll_back_to_savepoint(self, n: int) -> None:
        writer = self.writers[n]
        if writer.savepoints:
            writer.connection.execute(f"ROLLBACK TO {writer.savepoints.pop()}")

    @rule(n=WRITER)
    def commit(self, n: int) -> None:
        if self.writers[n].busy:
            self.writers[n].attempt(lambda _: self.writers[n].end("COMMIT"))
            self.ask_everybody()

    @rule(n=WRITER)
    def abort(self, n: int) -> None:
        if self.writers[n].busy:
            self.writers[n].end("ROLLBACK")

    # Builds

    @rule()
    def read_for_a_build(self) -> None:
        self.contents.append(read_embeddings(self.app.engine, self.model))

    @precondition(lambda self: self.contents)
    @rule(which=st.integers(0, 5))
    def publish(self, which: int) -> None:
        """Build from any earlier read, so that older content may become the newest build."""
        self.publish_content(self.contents.pop(which % len(self.contents)))
        self.ask_everybody()

    @rule()
    def build_and_publish(self) -> None:
        self.app.indexer.rebuild()
        self.ask_everybody()

    # Searches

    @rule(seed=DIRECTIONS, k=st.sampled_from([1, 3, 10, 200]))
    def search_now(self, seed: int, k: int) -> None:
        self.search_in_new_snapshot([seed], k)

    @precondition(lambda self: len(self.searchers) < 3)
    @rule()
    def open_snapshot(self) -> None:
        context = snapshot(self.app.engine)
        connection = context.__enter__()
        self.searchers.append(Searcher(context, connection, read(connection)))

    @precondition(lambda self: self.searchers)
    @rule(which=st.integers(0, 2), seed=DIRECTIONS, k=st.sampled_from([1, 10]))
    def search_in_an_old_snapshot(self, which: int, seed: int, k: int) -> None:
        searcher = self.searchers[which % len(self.searchers)]
        self.judge(searcher.connection, searcher.rows, seed, k)

    @precondition(lambda self: self.searchers)
    @rule(which=st.integers(0, 2))
    def close_snapshot(self, which: int) -> None:
        searcher = self.searchers.pop(which % len(self.searchers))
        searcher.context.__exit__(None, None, None)

    # How each is done

    def judge(self, connection: Connection, rows: Rows, seed: int, k: int) -> None:
        query = direction(seed)
        answer = find(
            RetrievalRequest(self.model, query, k, connection=connection),
            self.app.files,
            self.app.settings,
        )
        self.paths[answer.path] += 1
        wrong = differences(rows, query, answer.candidates, k)
        assert not wrong, f"{answer.path}, {answer.reason}: {'; '.join(wrong)}"

    def ask_everybody(self) -> None:
        """Three kinds of queries for ten products, in a new snapshot and in each open one."""
        seeds = [self.last_seed, self.last_seed + 1, 100]
        self.search_in_new_snapshot(seeds, 10)
        for seed in seeds:
            for searcher in self.searchers:
                self.judge(searcher.connection, searcher.rows, seed, 10)

    def search_in_new_snapshot(self, seeds: list[int], k: int) -> None:
        with snapshot(self.app.engine) as connection:
            rows = read(connection)
            for seed in seeds:
                self.judge(connection, rows, seed, k)
        with quick_snapshot(self.app) as connection:
            for query in map(direction, seeds):
                answer = at_once_with_newest(connection, self.app, self.model, query, k)
                if answer is not None:
                    self.paths["at once"] += 1
                    wrong = differences(rows, query, answer.candidates, k)
                    assert not wrong, f"at once, {answer.reason}: {'; '.join(wrong)}"

    def write_products(self, connection: psycopg.Connection, seeds: list[int]) -> None:
        skus = [uuid4().hex for _ in seeds]
        pictures = [row[0] for row in connection.execute(INSERT, {"skus": skus})]
        connection.execute(EMBED, [pictures, [literal(seed) for seed in seeds]])

    def to_one(self, n: int, place: int, work: Callable[[psycopg.Connection, int], Any]) -> None:
        """An operation on one picture that no other transaction has locked, if there is one."""

        def done(connection: psycopg.Connection) -> None:
            row = connection.execute(PICK, [place]).fetchone()
            if row is not None:
                work(connection, row[0])

        self.writers[n].attempt(done)

    def publish_content(self, content: EmbeddingSnapshot) -> None:
        """The second half of a build; no build is retired, so that old ones stay in use."""
        index = faiss_index.build(content.ids, content.vectors)
        sha256, size = self.app.files.write(index)
        with self.app.engine.begin() as connection:
            build = index_builds.begin(connection, self.model.id)
            index_builds.finish(
                connection, build, "published", snapshot=content.snapshot, kind=index.kind,
                parameters=dict(index.parameters), rows=index.rows, sha256=sha256, size=size,
            )  # fmt: skip


def chosen() -> settings:
    """Deterministic examples; HORIZON_EXAMPLES sets their number."""
    once = [Phase.generate] if os.environ.get("HORIZON_ONCE") else list(Phase)
    return settings(
        max_examples=int(os.environ.get("HORIZON_EXAMPLES", "20")),
        stateful_step_count=int(os.environ.get("HORIZON_STEPS", "40")),
        phases=once,
        deadline=None,
        derandomize="HORIZON_EXAMPLES" not in os.environ,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )


def test_every_search_is_exact_in_its_snapshot(app: App, database_url: str) -> None:
    paths: Counter[str] = Counter()
    run_state_machine_as_test(lambda: Horizon(app, database_url, paths), settings=chosen())
    at_once = paths.pop("at once", 0)
    assert paths["faiss"] > 0.9 * paths.total()
    assert at_once > 0.2 * paths.total()
