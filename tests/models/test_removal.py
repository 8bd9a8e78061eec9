"""Dropping a model while searches of every kind, analysts and an ingest run."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.encoders.preprocessing import PreparedPicture
from app.errors import LockHeld, ModelNotMaintained, UnknownModel
from app.models.backfill import BackfillReport, embed
from app.models.lifecycle import NotReady
from app.search import service as search_service
from app.types import Query, Vectors
from conftest import Fill
from ingest.originals import Originals
from support.colours import ColourEncoder, photo
from support.servers import wait_until
from support.sources import ingest, write_source

ROWS = 40
DROPS = 5


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


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str]) -> str:
    return filled_database(load_forty)


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Callable[[], App]]:
    """More services on the same database, like those of other processes."""
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
    write_source(tmp_path / "in", ROWS)
    app.indexer.rebuild()
    return app


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


def analyst(connection: psycopg.Connection) -> Callable[[], str]:
    def ask() -> str:
        rows = connection.execute("SELECT sku FROM analytics.similar_products('P0001', 3)")
        if len(rows.fetchall()) != 3:
            raise AssertionError("an analyst found nothing")
        return "analyst"

    return ask


def loads(app: App, source: Path, first: int, last: int) -> Callable[[], str]:
    """Ingests a source, then deletes its products `first` to `last`."""

    def load() -> str:
        report = ingest(app, source)
        if report.rejected:
            raise AssertionError(report)
        app.catalog.delete([f"P{n:04}" for n in range(first, last)])
        return "ingest"

    return load


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


def test_searches_of_every_kind_go_on_while_models_are_dropped(
    filled: App, open_app: Callable[[], App], tmp_path: Path, sql: psycopg.Connection
) -> None:
    others, page = Others(), open_app()
    more = write_source(tmp_path / "more", ROWS + 60)
    with others.at_work(
        searches(page, "photo"), searches(page, "sku"), searches(open_app(), "sku"),
        searches(open_app(), "folded", fold=True, near_match=0.00001), analyst(sql),
        loads(open_app(), more, ROWS, ROWS + 60),
    ):  # fmt: skip
        for _ in range(DROPS):
            fill(filled, tmp_path / "more")
            filled.lifecycle.drop("mirrored")
        wait_until(lambda: others.wrong or len(others.done) >= 5, "not everything was done")
    assert others.wrong == []
    assert left_of_models(sql) == [("colours",), ("embedding_m1",)]


def test_searches_go_on_while_a_model_is_activated_and_the_former_one_dropped(
    filled: App, open_app: Callable[[], App], tmp_path: Path, sql: psycopg.Connection
) -> None:
    others, page = Others(), open_app()
    with others.at_work(
        searches(page, "photo"), searches(page, "sku"), searches(open_app(), "photo"), analyst(sql)
    ):
        for new, former in [("mirrored", "colours"), ("colours", "mirrored")] * 2:
            fill(filled, tmp_path / "in", new)
            filled.indexer.rebuild(new)
            filled.lifecycle.activate(new)
            filled.lifecycle.drop(former)
    assert others.wrong == []
    assert left_of_models(sql) == [("colours",), ("embedding_m5",)]


def test_a_running_search_keeps_its_model(
    filled: App, open_app: Callable[[], App], tmp_path: Path, sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    other = open_app()
    fill(other, tmp_path / "in")
    other.indexer.rebuild("mirrored")
    real, dropping_ = search_service.page, []

    def page(asked: Any) -> Any:
        if not dropping_:
            other.lifecycle.activate("mirrored")
            dropping_.append(threading.Thread(target=other.lifecycle.drop, args=("colours",)))
            dropping_[0].start()
            waits = "query LIKE '%DETACH%' AND wait_event_type = 'Lock'"
            wait_until(lambda: active(sql, waits) or partitions(sql) == 1, "nothing was dropped")
        return real(asked)

    monkeypatch.setattr("app.search.service.page", page)
    result = filled.search.search(Query(picture=photo(7), k=3))
    dropping_[0].join()
    assert (result.plan.model, len(result.matches)) == ("colours", 3)
    assert left_of_models(sql) == [("embedding_m2",), ("mirrored",)]
    assert filled.search.search(Query(picture=photo(7), k=3)).plan.model == "mirrored"


def partitions(sql: psycopg.Connection) -> int:
    found = sql.execute("SELECT FROM pg_inherits WHERE inhparent = 'embedding'::regclass")
    return len(found.fetchall())


def active(sql: psycopg.Connection, condition: str) -> bool:
    """Whether a session of this database fulfils a condition on pg_stat_activity."""
    here = "datname = current_database() AND pid <> pg_backend_pid()"
    found = sql.execute(f"SELECT FROM pg_stat_activity WHERE {here} AND {condition}")
    return found.fetchone() is not None


@pytest.mark.parametrize("table", ["embedding", "picture", "model"])
def test_a_long_reader_is_not_disturbed_and_the_drop_asks_to_be_repeated(
    filled: App, open_app: Callable[[], App], sql: psycopg.Connection, database_url: str,
    monkeypatch: pytest.MonkeyPatch, table: str,
) -> None:  # fmt: skip
    """Like a backup, which locks a table while searches and writers go on."""
    filled.lifecycle.add("mirrored")
    others = Others()
    with (
        monkeypatch.context() as patched, psycopg.connect(database_url) as reader,
        others.at_work(searches(open_app(), "sku"), undisturbed(sql, table)),
        pytest.raises(LockHeld, match=r"not completely dropped.*model drop mirrored` again"),
    ):  # fmt: skip
        patched.setattr("app.models.removal.PATIENCE_S", 0.5)
        reader.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        filled.lifecycle.drop("mirrored")
    assert others.wrong == [] and others.done
    filled.lifecycle.drop("mirrored")
    assert left_of_models(sql) == [("colours",), ("embedding_m1",)]


def undisturbed(sql: psycopg.Connection, table: str) -> Callable[[], str]:
    """Reports when a drop waits for a lock on a table that searches read and wait behind it."""
    waits = """SELECT FROM pg_locks WHERE relation = to_regclass(%s) AND NOT granted
        AND mode = 'AccessExclusiveLock'"""

    def look() -> str:
        if sql.execute(waits, [table]).fetchone() is not None:
            raise AssertionError("searches wait behind the drop")
        return "looked"

    return look


class Killed(BaseException):
    """Simulates the end of the process."""


STEPS = ["removal.detach", "removal.delete", "removal.partitions.drop",
         "lifecycle.models.delete"]  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_drop_is_completed_by_repeating_it(
    filled: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    filled.lifecycle.add("mirrored")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(f"app.models.{step}", killed)
        filled.lifecycle.drop("mirrored")
    filled.lifecycle.drop("mirrored")
    assert left_of_models(sql) == [("colours",), ("embedding_m1",)]


@pytest.fixture(params=["detaching", "detached"])
def half_dropped(
    request: pytest.FixtureRequest, filled: App, open_app: Callable[[], App], tmp_path: Path,
    sql: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch,
) -> App:  # fmt: skip
    """A catalogue whose previously active model is partly dropped."""
    fill(filled, tmp_path / "in")
    filled.indexer.rebuild("mirrored")
    filled.lifecycle.activate("mirrored")
    monkeypatch.setattr("app.models.removal.PATIENCE_S", 0.3)
    table = "embedding" if request.param == "detaching" else "picture"
    with psycopg.connect(database_url) as reader, pytest.raises(LockHeld):
        reader.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        filled.lifecycle.drop("colours")
    pending = sql.execute("SELECT inhdetachpending FROM pg_inherits WHERE inhdetachpending")
    assert bool(pending.fetchall()) == (request.param == "detaching")
    return open_app()


def test_a_partly_dropped_model_is_not_used_until_its_drop_is_completed(half_dropped: App) -> None:
    life = half_dropped.lifecycle
    changes: dict[str, Callable[[], object]] = {
        "add": lambda: life.add("colours"),
        "activate": lambda: life.activate("colours"),
        "activate by force": lambda: life.activate("colours", forced_reason="because"),
        "roll back": life.rollback,
        "roll back by force": lambda: life.rollback(forced_reason="because"),
    }
    reason = "colours was not completely dropped; run `lookalike model drop"
    for name, change in changes.items():
        with pytest.raises(NotReady, match=reason):
            change()
            pytest.fail(f"{name} was not refused")
    assert half_dropped.search.search(Query(picture=photo(7))).plan.model == "mirrored"
    with pytest.raises(ModelNotMaintained, match="colours is not kept up to date"):
        half_dropped.indexer.rebuild("colours")
    life.drop("colours")
    assert life.add("colours").id > 2
    assert [each.model.name for each in life.models()] == ["mirrored", "colours"]


def test_other_models_are_added_and_dropped_while_one_is_partly_dropped(
    half_dropped: App, sql: psycopg.Connection
) -> None:
    life = half_dropped.lifecycle
    life.add("third")
    detaching = sql.execute("SELECT FROM pg_inherits WHERE inhdetachpending").fetchall()
    if detaching:
        with pytest.raises(NotReady, match="colours was not completely dropped; run `lookalike"):
            life.drop("third")
        assert {each.model.name: each.maintained for each in life.models()}["third"]
        life.drop("colours")
    life.drop("third")
    assert "third" not in [each.model.name for each in life.models()]


@pytest.mark.parametrize(
    "change",
    [lambda life: life.add("third"),
     lambda life: life.activate("mirrored", forced_reason="because"),
     lambda life: life.rollback(), lambda life: life.drop("mirrored")],
    ids=["add", "activate", "rollback", "drop"],
)  # fmt: skip
def test_a_second_change_of_models_is_refused_at_once(
    filled: App, open_app: Callable[[], App], sql: psycopg.Connection, database_url: str,
    change: Callable[[Any], object],
) -> None:  # fmt: skip
    filled.lifecycle.add("mirrored")
    with psycopg.connect(database_url) as reader:
        reader.execute("LOCK TABLE embedding IN ACCESS SHARE MODE")
        one = threading.Thread(target=filled.lifecycle.drop, args=("mirrored",))
        one.start()
        waits = "query LIKE '%DETACH%' AND wait_event_type = 'Lock'"
        wait_until(lambda: active(sql, waits), "the drop does not wait")
        with pytest.raises(NotReady, match="Another change of the models is under way"):
            change(open_app().lifecycle)
    one.join()
    assert [each.model.name for each in filled.lifecycle.models()] == ["colours"]


def test_an_ambiguous_revision_is_refused(
    filled: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    life = filled.lifecycle
    life.add("mirrored", "1a")
    life.add("mirrored", "2b")
    with pytest.raises(NotReady, match=r"say which to drop: mirrored@2b or mirrored@1a"):
        life.drop("mirrored")
    with pytest.raises(UnknownModel):
        life.drop("mirrored@3")
    assert life.model("mirrored@1").revision == "1a" and life.model("mirrored").revision == "2b"
    life.drop("mirrored@1a")
    assert [each.model.revision for each in life.models()] == ["1", "2b"]
    life.activate("mirrored", forced_reason="to see")
    life.add("mirrored", "4d")
    assert life.drop("mirrored").revision == "4d"  # the other one is active
    with pytest.raises(NotReady, match="mirrored is the active model"):
        life.drop("mirrored")


def test_a_backfill_stops_when_its_model_is_dropped(
    filled: App, open_app: Callable[[], App], tmp_path: Path, sql: psycopg.Connection
) -> None:
    model, other = filled.lifecycle.add("mirrored"), open_app()
    find = Originals([tmp_path / "in"], filled.limits, None).find

    def drop_midway(report: BackfillReport) -> None:
        other.lifecycle.drop("mirrored")

    with pytest.raises(ModelNotMaintained, match="mirrored is not kept up to date any more"):
        embed(filled.engine, model, filled.encoders.for_model(model.id), find, drop_midway)
    with pytest.raises(UnknownModel):
        filled.indexer.rebuild("mirrored")
    assert left_of_models(sql) == [("colours",), ("embedding_m1",)]


def test_a_running_ingest_notices_a_dropped_model(
    filled: App, open_app: Callable[[], App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real = open_app(), filled.catalog.models
    other.lifecycle.add("mirrored")

    def models() -> Any:
        found = real()
        if len(found) > 1:
            other.lifecycle.drop("mirrored")
        return found

    monkeypatch.setattr(filled.catalog, "models", models)
    assert ingest(filled, write_source(tmp_path / "more", ROWS + 5)).added == 5


def test_the_encoder_of_a_dropped_model_is_freed(
    filled: App, open_app: Callable[[], App], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, page = filled.lifecycle.add("mirrored"), open_app()
    held = weakref.ref(page.encoders.for_model(model.id))
    filled.lifecycle.drop("mirrored")
    monkeypatch.setattr("app.models.encoder_pool.PRELOAD_S", 0.0)
    page.search.search(Query(picture=photo(1)))
    wait_until(lambda: gc.collect() >= 0 and held() is None, "the encoder is still there")
    page.search.search(Query(picture=photo(2)))
