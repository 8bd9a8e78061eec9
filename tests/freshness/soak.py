"""Concurrent writers, builders and searchers; numpy verifies each search in its own snapshot.

Run it for long with `make soak`; a short run is part of the tests. A different answer stops it.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
import psycopg
from sqlalchemy import Connection

from app.bootstrap import App
from app.db.engine import snapshot
from app.errors import BuildRunning
from app.search.planner import find
from app.search.retrieval import RetrievalRequest
from app.types import Model
from support.snapshots import Rows, at_once_with_newest, differences, quick_snapshot, read

DIM = 49
LIVE = 200
"""Approximate number of products at any time."""
K = 10
IMPATIENT = "-c lock_timeout=30ms -c deadlock_timeout=20ms"
"""Short timeouts, because writers that wait for each other's rows change nothing."""
LOST = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.IntegrityError,
)
PAUSES = (0, 0.05, 0.3, 1.0, 2.0)
"""Seconds between two builds; mostly long enough for rows to change."""


def vector(chance: np.random.Generator) -> list[float]:
    found = chance.standard_normal(DIM)
    return [float(part) for part in found / np.linalg.norm(found)]


class Writer(threading.Thread):
    """Runs transactions of all kinds and lengths; some abort or roll back to a savepoint."""

    def __init__(self, url: str, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._stop_event = url, stop
        self._random, self._chance = random.Random(seed), np.random.default_rng(seed)
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with psycopg.connect(self._url, options=IMPATIENT) as connection:
                while not self._stop_event.is_set():
                    with suppress(*LOST):
                        self._transaction(connection)
                    connection.rollback()
        except psycopg.OperationalError as exc:
            self.failure = exc

    def _transaction(self, connection: psycopg.Connection) -> None:
        for _ in range(self._random.choice([1, 1, 2, 8, 30])):
            action = self._random.choice(
                [self.insert_one, self.change_one, self.delete_one, self.update_product]
            )
            if self._random.random() < 0.3:
                with connection.transaction() as savepoint:
                    action(connection)
                    if self._random.random() < 0.5:
                        raise psycopg.Rollback(savepoint)
            else:
                action(connection)
            time.sleep(self._random.choice([0, 0, 0.002, 0.02]))
        if self._random.random() < 0.85:
            connection.commit()

    def insert_one(self, connection: psycopg.Connection) -> None:
        if self.products(connection) > LIVE * 1.2:
            return self.delete_one(connection)
        name = uuid4().hex
        connection.execute(
            """WITH p AS (INSERT INTO product (sku) VALUES (%(sku)s) RETURNING id),
            pic AS (INSERT INTO picture (sha256, width, height, thumbnail)
                VALUES (sha256(%(sku)s::bytea), 1, 1, '') RETURNING id)
            INSERT INTO product_picture SELECT p.id, pic.id, 0, '' FROM p, pic""",
            {"sku": name},
        )
        connection.execute(
            """INSERT INTO embedding (model_id, picture_id, vec)
            SELECT 1, picture_id, %s::halfvec FROM product_picture JOIN product
            ON id = product_id WHERE sku = %s""",
            [str(vector(self._chance)), name],
        )
        return None

    def change_one(self, connection: psycopg.Connection) -> None:
        connection.execute(
            """UPDATE embedding SET vec = %s::halfvec, changed_in = '3' WHERE picture_id = (
            SELECT picture_id FROM embedding OFFSET floor(random() * %s) LIMIT 1)""",
            [str(vector(self._chance)), LIVE],
        )

    def delete_one(self, connection: psycopg.Connection) -> None:
        if self.products(connection) < LIVE * 0.8:
            return
        connection.execute(
            """WITH gone AS (SELECT product_id, picture_id FROM product_picture
                OFFSET floor(random() * %s) LIMIT 1),
            links AS (DELETE FROM product WHERE id IN (SELECT product_id FROM gone))
            DELETE FROM embedding WHERE picture_id IN (SELECT picture_id FROM gone)""",
            [LIVE],
        )

    def update_product(self, connection: psycopg.Connection) -> None:
        connection.execute(
            """UPDATE product SET year = 2000 + coalesce(year, 0) %% 7 WHERE id = (
            SELECT id FROM product OFFSET floor(random() * %s) LIMIT 1)""",
            [LIVE],
        )

    def products(self, connection: psycopg.Connection) -> int:
        row = connection.execute("SELECT count(*) FROM product").fetchone()
        assert row is not None
        return int(row[0])


class Builder(threading.Thread):
    """Builds one index after another, with pauses of varying length."""

    def __init__(self, app: App, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._app, self._random, self._stop_event = app, random.Random(seed), stop
        self.builds = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        while not self._stop_event.wait(self._random.choice(PAUSES)):
            try:
                self._app.indexer.rebuild()
                self.builds += 1
            except BuildRunning:
                continue
            except BaseException as exc:
                self.failure = exc
                return


@dataclass
class Tally:
    """Results of the searchers."""

    searches: int = 0
    at_once: int = 0
    paths: Counter[str] = field(default_factory=Counter)
    with_delta: int = 0
    with_vanished: int = 0
    with_both: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def by_faiss_with_both(self) -> float:
        """The share of searches that FAISS answered with vanished rows and a delta."""
        return self.with_both / max(self.searches, 1)


class Searcher(threading.Thread):
    """Searches and verifies; sometimes sleeps inside its snapshot while others write."""

    def __init__(self, app: App, seed: int, searches: int, tally: Tally) -> None:
        super().__init__(daemon=True)
        self._app, self._searches, self._tally = app, searches, tally
        self._random, self._chance = random.Random(seed), np.random.default_rng(seed)

    def run(self) -> None:
        try:
            self.ask_on()
        except BaseException as exc:
            with self._tally.lock:
                self._tally.wrong.append(f"a search failed: {exc!r}")

    def ask_on(self) -> None:
        model = self._app.catalog.model()
        while self._tally.searches < self._searches and not self._tally.wrong:
            quick = self._random.random() < 0.5
            opened = quick_snapshot(self._app) if quick else snapshot(self._app.engine)
            with opened as connection:
                rows = read(connection)
                # Many questions in one snapshot: builds and commits go on that it does not see.
                for _ in range(self._random.choice([1, 1, 1, 3, 30])):
                    time.sleep(self._random.choice([0, 0, 0.01, 0.05]))
                    self.ask(connection, model, rows, quick)

    def ask(self, connection: Connection, model: Model, rows: Rows, quick: bool) -> None:
        query = np.array(vector(self._chance), dtype=np.float16).astype(np.float32)
        answer = at_once_with_newest(connection, self._app, model, query, K) if quick else None
        at_once = answer is not None
        if answer is None:
            answer = find(
                RetrievalRequest(model, query, K, connection=connection),
                self._app.files,
                self._app.settings,
            )
        wrong = differences(rows, query, answer.candidates, K)
        with self._tally.lock:
            self._tally.searches += 1
            self._tally.at_once += at_once
            self._tally.paths[answer.path] += 1
            delta, vanished = bool(answer.delta_rows), bool(answer.candidates.vanished)
            self._tally.with_delta += delta
            self._tally.with_vanished += vanished
            self._tally.with_both += answer.path == "faiss" and delta and vanished
            if wrong:
                self._tally.wrong.append(f"different: {answer.reason}: {'; '.join(wrong)}")


def fill(url: str, seed: int) -> None:
    """Insert the initial products."""
    writer = Writer(url, seed, threading.Event())
    with psycopg.connect(url) as connection:
        for _ in range(LIVE):
            writer.insert_one(connection)


def soak(app: App, url: str, *, searches: int, writers: int = 4, seed: int = 0) -> Tally:
    """Run until `searches` were verified, or one was wrong."""
    fill(url, seed)
    app.indexer.rebuild()
    stop, tally = threading.Event(), Tally()
    writing = [Writer(url, seed + n, stop) for n in range(writers)]
    builder = Builder(app, seed, stop)
    searching = [Searcher(app, seed + n, searches, tally) for n in range(2)]
    for thread in (*writing, builder, *searching):
        thread.start()
    for thread in searching:
        thread.join()
    stop.set()
    for thread in (*writing, builder):
        thread.join(60)
    failures = [thread.failure for thread in (*writing, builder) if thread.failure]
    if failures:
        raise failures[0]
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    import shutil
    import tempfile

    from app.config import Settings
    from app.db.embedded import server as embedded_server
    from conftest import HASTY
    from support.colours import choose_colours

    home = Path(tempfile.mkdtemp(prefix="lookalike-soak-"))
    url = embedded_server.start(home, HASTY)
    try:
        with App(Settings(home=home, database_url=url), choose=choose_colours) as app:
            app.initialise()
            began = time.monotonic()
            tally = soak(app, url, searches=words.searches, seed=words.seed)
            print(f"{tally.searches} searches in {time.monotonic() - began:.0f} s:")
            print(
                f"  {dict(tally.paths)}, {tally.at_once} in one statement, "
                f"{tally.with_delta} with a delta,"
            )
            print(f"  {tally.with_vanished} with vanished rows;")
            print(f"  {tally.by_faiss_with_both:.1%} answered by FAISS with both")
            print("none was different" if not tally.wrong else "\n".join(tally.wrong))
    finally:
        embedded_server.stop(home)
        shutil.rmtree(home, ignore_errors=True)
    raise SystemExit(bool(tally.wrong))


if __name__ == "__main__":
    main()
