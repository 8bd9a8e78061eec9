"""A model whose removal was interrupted: not used, and removed by repeating it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.errors import LockHeld, ModelNotMaintained
from app.models.lifecycle import NotReady
from app.types import Query
from conftest import Fill
from support.colours import photo
from support.model_removal import Others, active, fill, left_of_models, load_forty, searches
from support.servers import wait_until


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str]) -> str:
    return filled_database(load_forty)


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
