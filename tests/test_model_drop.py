"""A model is dropped while everybody else works: searches of every kind, analysts, an ingest."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from colours import ColourEncoder, photo
from goods import ingest, shop
from PIL import Image

from app.bootstrap import App
from app.config import Settings
from app.embedding import embed
from app.encoders import Choice
from app.values import Query, Vectors
from ingest.originals import Originals

ROWS = 40
DROPS = 12


class Mirrored(ColourEncoder):
    """Another encoder of the same pictures: its axes are reversed."""

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        return np.ascontiguousarray(super().encode_pictures(pictures)[:, ::-1])


def choose(model: str, **_: Any) -> Choice:
    return Choice(Mirrored("mirrored") if model == "mirrored" else ColourEncoder(), "")


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Callable[[], App]]:
    """More processes on the same database, as it were."""
    apps: list[App] = []

    def open_() -> App:
        apps.append(App(settings, choose=choose))
        return apps[-1]

    yield open_
    for each in apps:
        each.close()


@pytest.fixture
def filled(open_app: Callable[[], App], tmp_path: Path) -> App:
    """A catalogue of forty products under the first model, indexed."""
    app = open_app()
    ingest(app, shop(tmp_path / "in", ROWS))
    app.indexer.rebuild()
    return app


class Others:
    """Runs others over and over beside a test, and keeps what went wrong."""

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
    """Asks for a photo, or a product, that is there, and tells when it is not found."""
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


def analyst(url: str) -> Callable[[], str]:
    connection = psycopg.connect(url, autocommit=True)

    def ask() -> str:
        rows = connection.execute("SELECT sku FROM analytics.similar_products('P0001', 3)")
        if len(rows.fetchall()) != 3:
            raise AssertionError("an analyst found nothing")
        return "analyst"

    return ask


def test_searches_of_every_kind_go_on_while_models_are_dropped(
    filled: App, open_app: Callable[[], App], tmp_path: Path, settings: Settings
) -> None:
    others = Others()
    page = open_app()
    ingesting, again = shop(tmp_path / "more", ROWS + 60), open_app()

    def load() -> str:
        ingest(again, ingesting)
        again.catalog.delete([f"P{n:04}" for n in range(ROWS, ROWS + 60)])
        return "ingest"

    with others.at_work(
        searches(page, "photo"), searches(page, "sku"), searches(open_app(), "sku"),
        searches(page, "folded", fold=True, near_match=0.00001),
        analyst(settings.database_url or ""), load,
    ):  # fmt: skip
        for _ in range(DROPS):
            model = filled.lifecycle.add("mirrored")
            find = Originals([tmp_path / "in"], filled.limits, None).find
            embed(filled.engine, model, filled.encoders.of(model.id), find)
            filled.lifecycle.drop("mirrored")
    print(others.done)
    assert others.wrong == []
    assert [each.model.name for each in filled.lifecycle.models()] == ["colours"]
