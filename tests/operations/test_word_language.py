"""The language of words changes while searches and writes go on, and ends complete."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from app.bootstrap import App
from app.cli.words import words as words_command
from app.config import Settings
from app.db import locks
from app.db.locks import LockKey
from app.errors import BadInput, LockHeld
from app.operations import synonyms, word_language
from app.types import Query
from support.colours import choose_colours
from support.exact import skus
from support.shop import add, numbered

KEPT = """SELECT language, count(*) FROM product_words GROUP BY 1 ORDER BY 1"""
OUTDATED = """
SELECT count(*) FROM product AS p LEFT JOIN product_words AS w ON w.product_id = p.id
WHERE w.words IS DISTINCT FROM (
    weighted_words(w.language::regconfig, p.title, p.brand, p.category, p.colour)
    || product_codes(p.sku, p.attributes))"""


def ask(app: App, words: str) -> list[str]:
    return skus(app.search.search(Query(words=words, words_by="catalogue", k=50)))


def test_words_are_stemmed_by_the_new_language(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1]}, category="Häuser")
    add(app, {"B": [2]}, category="Running")
    assert (ask(app, "haus "), ask(app, "runs")) == ([], ["B"])
    assert word_language.change(app.engine, "german")
    assert word_language.current(app.engine) == "german"
    result = app.search.search(Query(words="haus ", words_by="catalogue"))
    assert result.plan.reading is not None and result.plan.reading.language == "german"
    assert sql.execute(KEPT).fetchall() == [("german", 2)]
    assert sql.execute("SELECT DISTINCT language FROM vocabulary").fetchall() == [("german",)]
    assert word_language.change(app.engine, "simple")
    assert ask(app, "running") == ["B"]
    assert ask(app, "runs ") == []
    assert not word_language.change(app.engine, "simple")


def test_searches_and_writes_go_on_while_the_language_changes(
    app: App, database_url: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.word_language.BATCH", 3)
    add(app, numbered(60), category="Kettle")
    stop = threading.Event()
    wrong: list[Any] = []
    done = {"searches": 0, "writes": 0}

    def search() -> None:
        while not stop.is_set():
            found = ask(app, "kettle")
            if len(found) != 50:
                wrong.append(found)
            done["searches"] += 1

    def write() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute(
                    "UPDATE product SET colour = %s WHERE sku = %s",
                    [f"shade{number}", f"P{number % 60:04}"],
                )
                connection.execute(
                    "INSERT INTO product (sku, category) VALUES (%s, 'Pot')", [f"N{number}"]
                )
                connection.execute("DELETE FROM product WHERE sku = %s", [f"N{number - 3}"])
                done["writes"] += 1

    threads = [threading.Thread(target=search), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    for language in ("german", "simple", "english"):
        before = dict(done)
        assert word_language.change(app.engine, language)
        while done["searches"] < before["searches"] + 3 and not wrong:
            time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(300)
    assert wrong == [] and min(done.values()) > 3
    assert sql.execute(OUTDATED).fetchone() == (0,)
    [(language, _)] = sql.execute(KEPT).fetchall()
    assert language == "english"


def test_an_interrupted_change_is_finished_by_the_next(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.word_language.BATCH", 2)
    add(app, numbered(6), category="Kettle")

    def interrupt(message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        word_language.change(app.engine, "german", interrupt)
    assert word_language.current(app.engine) == "english"
    assert len(ask(app, "kettles")) == 6
    app.catalog.delete(["P0001"])
    assert word_language.change(app.engine, "german")
    assert sql.execute(KEPT).fetchall() == [("german", 5)]
    assert sql.execute(OUTDATED).fetchone() == (0,)


def test_a_language_that_the_server_lacks_is_refused(app: App) -> None:
    with pytest.raises(BadInput, match=r"no language 'klingon'; it has .*german"):
        word_language.change(app.engine, "klingon")


def test_two_changes_at_a_time_are_refused(app: App) -> None:
    with locks.session(app.engine, LockKey.WORD_LANGUAGE) as locked:
        assert locked
        with pytest.raises(LockHeld, match="Another process is changing the language"):
            word_language.change(app.engine, "german")


def test_the_setting_decides_for_an_empty_catalogue_only(
    app: App, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with App(settings.model_copy(update={"language": "german"}), choose=choose_colours) as german:
        german.initialise()
        assert word_language.current(app.engine) == "german"
    add(app, numbered(1))
    with App(settings.model_copy(update={"language": "simple"}), choose=choose_colours) as simple:
        simple.initialise()
    assert word_language.current(app.engine) == "german"
    assert "`lookalike words language simple` changes it" in caplog.text


def test_a_shop_adds_and_removes_synonyms(app: App) -> None:
    add(app, {"A": [1]}, category="Kettle")
    assert ask(app, "wasser-kocher") == []
    assert synonyms.add(app.engine, "Wasser-Kocher", "kettles")
    assert not synonyms.add(app.engine, "wasser kocher", "kettles")
    assert ask(app, "wasser-kocher") == ["A"]
    assert ("kettles", "wasser kocher") in synonyms.listed(app.engine)
    assert synonyms.remove(app.engine, "kettles", "wasser kocher")
    assert ask(app, "wasser-kocher") == []
    assert not synonyms.remove(app.engine, "kettles", "wasser kocher")
    with pytest.raises(BadInput, match="has no word"):
        synonyms.add(app.engine, "--", "kettle")
    with pytest.raises(BadInput, match="same words already"):
        synonyms.add(app.engine, "A b", "a-B")


def test_the_commands_change_language_and_synonyms(
    app: App, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    del app
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", str(settings.database_url))
    monkeypatch.setenv("LOOKALIKE_HOME", str(settings.home))
    run = CliRunner().invoke
    assert run(words_command, ["language"]).output == "english\n"
    assert "stemmed by german now" in run(words_command, ["language", "german"]).output
    assert "german already" in run(words_command, ["language", "german"]).output
    assert "pot finds kettle" in run(words_command, ["add-synonym", "pot", "kettle"]).output
    assert "found kettle already" in run(words_command, ["add-synonym", "pot", "kettle"]).output
    assert '"word": "pot"' in run(words_command, ["synonyms", "--json"]).output
    assert "not find kettle" in run(words_command, ["remove-synonym", "pot", "kettle"]).output
    assert "no such synonym" in run(words_command, ["remove-synonym", "pot", "kettle"]).output
