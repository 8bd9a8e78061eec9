"""Where similarity labels appear, and from which cut-offs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import event

from app.bootstrap import App
from app.cli import cli
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.search.similarity_labels import CalibrationCache, label
from app.types import Query, Vectors
from support.colours import ColourEncoder, photo
from support.shop import add, numbered, vectors
from support.text_encoder import ask


def set_all(sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO calibration (model_id, same_photo_distance, same_product_distance,"
                " similar_distance) VALUES (1, 0.001, 0.002, 2)")  # fmt: skip


def test_both_search_paths_show_labels(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(50))
    set_all(sql)
    app.indexer.rebuild()
    for _ in range(2):  # the second search is a single statement
        said = [match.means for match in ask(app, 1, k=3).matches]
        assert said == ["same photo", "similar", "similar"]


def test_cut_offs_are_read_once_a_minute(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(5))
    read: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM calibration" in statement:
            read.append(statement)

    event.listen(app.search_engine, "before_cursor_execute", note)
    assert ask(app, 1).matches[0].means is None
    set_all(sql)
    assert ask(app, 1).matches[0].means is None
    assert len(read) == 1
    monkeypatch.setattr("app.search.similarity_labels.FRESH_S", 0.0)
    assert ask(app, 1).matches[0].means == "same photo"
    assert len(read) == 2


def test_a_search_succeeds_if_the_cut_offs_cannot_be_read(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    sql.execute("DROP TABLE calibration")
    assert [match.means for match in ask(app, 1).matches] == [None] * 5


def test_other_searches_do_not_wait_while_one_reads_the_cut_offs(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    set_all(sql)
    cache = CalibrationCache(app.engine)
    matches = ask(app, 1).matches
    with cache._lock:
        assert label(matches, cache.calibrations(1)) == matches
    assert label(matches, cache.calibrations(1))[0].means == "same photo"


def test_text_queries_have_no_labels(settings: Settings, app: App, sql: psycopg.Connection) -> None:
    class Reader(ColourEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.reads_words = True

        def encode_words(self, words: Sequence[str]) -> Vectors:
            return vectors(app, [1])

    add(app, numbered(5))
    set_all(sql)
    with App(settings, choose=lambda *_, **__: EncoderChoice(Reader(), "")) as reader:
        found = reader.search.search(Query(words="red", k=5)).matches
    assert found[0].similarity > 0.999 and {match.means for match in found} == {None}


@pytest.mark.usefixtures("ours")
def test_a_search_prints_the_label_next_to_the_similarity(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    set_all(sql)
    ran = CliRunner().invoke(cli, ["search", "--sku", "P0001", "--k", "2"])
    assert "similar  P000" in " ".join(ran.stdout.split("\n")).replace("similarity", "")
    found = json.loads(CliRunner().invoke(cli, ["search", "-", "--json"], input=photo(1)).stdout)
    assert found["matches"][0]["means"] == "same photo"
