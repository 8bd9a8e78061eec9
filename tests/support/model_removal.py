"""Work that goes on while models are dropped, and what is left of a dropped one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psycopg

from app.bootstrap import App
from app.encoders.base import EncoderChoice
from app.encoders.preprocessing import PreparedPicture
from app.models.backfill import embed
from app.types import Query, Vectors
from ingest.originals import Originals
from support.colours import ColourEncoder, photo
from support.sources import ingest, write_source

ROWS = 40


class Mirrored(ColourEncoder):
    """An encoder whose vectors cannot be compared with the first one's: its axes are reversed."""

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        return np.ascontiguousarray(super().encode_prepared(prepared)[:, ::-1])


def choose(model: str, revision: str | None = None, **_: Any) -> EncoderChoice:
    """'colours', 'mirrored', and others with the vectors of 'colours'; each in any revision."""
    name = "colours" if model == "auto" else model
    encoder = Mirrored(name) if name == "mirrored" else ColourEncoder(name)
    if revision not in (None, "1"):
        encoder.revision, encoder.fingerprint = revision, encoder.fingerprint[:-2] + revision
    return EncoderChoice(encoder, "")


def load_forty(app: App) -> None:
    with TemporaryDirectory() as folder:
        ingest(app, write_source(Path(folder), ROWS))


class Others:
    """Repeats tasks in threads during a test, and records their errors."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.wrong: list[str] = []
        self.done = Counter[str]()

    @contextmanager
    def at_work(self, *each: Callable[[], str]) -> Iterator[None]:
        threads = [threading.Thread(target=self._on_and_on, args=(one,)) for one in each]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def _on_and_on(self, work: Callable[[], str]) -> None:
        while not self.over.is_set():
            try:
                self.done[work()] += 1
            except Exception as exc:
                self.wrong.append(repr(exc))


def searches(app: App, kind: str, **more: Any) -> Callable[[], str]:
    """Searches for an existing photo or product, and raises if it is not found."""
    numbers = iter(range(10**9))

    def search() -> str:
        seed = next(numbers) % ROWS
        asked = {"sku": f"P{seed:04}"} if kind == "sku" else {"picture": photo(seed)}
        result = app.search.search(Query(k=3, **asked, **more))
        found = result.matches[0].product.sku if result.matches else None
        if len(result.matches) < 3 or (kind != "sku" and found != f"P{seed:04}"):
            raise AssertionError(f"{kind} {seed}: {found}, {result.plan}")
        return f"{kind} {result.plan.path}"

    return search


def fill(app: App, source: Path, name: str = "mirrored") -> None:
    """Add a model and embed all pictures under it."""
    model = app.lifecycle.add(name)
    find = Originals([source], app.limits, None).find
    assert embed(app.engine, model, app.encoders.for_model(model.id), find).left == 0


def left_of_models(sql: psycopg.Connection) -> list[tuple[str, ...]]:
    """All that exists of models: their rows, and the tables and foreign keys of partitions."""
    return sql.execute(
        """SELECT name FROM model UNION ALL SELECT relname FROM pg_class
            WHERE relname ~ '^embedding_m[0-9]+$'
        UNION ALL SELECT tgrelid::regclass::text || ' ' || tgname FROM pg_trigger
            WHERE tgisinternal AND tgconstrrelid::regclass::text ~ '^embedding_m([2-9]|1.)'
        ORDER BY 1"""
    ).fetchall()


def active(sql: psycopg.Connection, condition: str) -> bool:
    """Whether a session of this database fulfils a condition on pg_stat_activity."""
    here = "datname = current_database() AND pid <> pg_backend_pid()"
    found = sql.execute(f"SELECT FROM pg_stat_activity WHERE {here} AND {condition}")
    return found.fetchone() is not None
