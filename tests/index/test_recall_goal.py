"""The recall goal: builds are measured, also with real queries, and can be audited later."""

from __future__ import annotations

import json

import numpy as np
import psycopg
import pytest
from click.testing import CliRunner

from app.bootstrap import App
from app.config import Settings
from app.db.queries import query_samples
from app.evaluation.recall_audit import audit
from app.index import faiss_index
from app.index.embedding_reader import EmbeddingSnapshot
from app.index.nominees import Nominees
from app.index.recall import RecallBenchmark
from app.search.query_sampler import QuerySampler
from app.types import Query
from support.colours import choose_colours, photo
from support.shop import add, numbered


def kept(sql: psycopg.Connection) -> int:
    row = sql.execute("SELECT count(*) FROM query_sample").fetchone()
    assert row is not None
    return int(row[0])


def ask(app: App, seed: int) -> None:
    app.search.search(Query(picture=photo(seed), k=3))


def test_the_vectors_of_searches_are_kept_after_the_answer(
    settings: Settings, sql: psycopg.Connection
) -> None:
    with App(settings, choose=choose_colours) as app:
        add(app, numbered(20))
        for seed in range(5):
            ask(app, 1000 + seed)
    assert kept(sql) == 5


def test_searches_by_sku_are_not_kept(settings: Settings, sql: psycopg.Connection) -> None:
    with App(settings, choose=choose_colours) as app:
        add(app, numbered(20))
        app.search.search(Query(sku="P0001"))
    assert kept(sql) == 0


def test_a_setting_turns_the_sample_off(settings: Settings, sql: psycopg.Connection) -> None:
    off = settings.model_copy(update={"sample_queries": False})
    with App(off, choose=choose_colours) as app:
        add(app, numbered(20))
        ask(app, 1000)
    assert kept(sql) == 0


def test_a_read_only_page_keeps_no_queries(settings: Settings, sql: psycopg.Connection) -> None:
    with App(settings.model_copy(update={"page_read_only": True}), choose=choose_colours) as app:
        add(app, numbered(20))
        ask(app, 1000)
    assert kept(sql) == 0


def test_the_sample_stays_bounded_and_holds_the_newest(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_samples, "MAX_SAMPLES", 10)
    model = app.catalog.model()
    axes = np.eye(49, dtype=np.float32)
    for number in range(30):
        with app.engine.begin() as connection:
            query_samples.add(connection, model.id, [axes[number]])
    with app.engine.connect() as connection:
        found = query_samples.read(connection, model)
    assert found.argmax(axis=1).tolist() == list(range(29, 19, -1))


def test_a_sample_that_cannot_be_written_is_forgotten(app: App, sql: psycopg.Connection) -> None:
    sampler = QuerySampler(app.engine)
    sampler.offer(999, np.ones(49, dtype=np.float32))
    sampler.close()
    assert kept(sql) == 0


def test_a_build_is_measured_with_real_queries_too() -> None:
    random = np.random.default_rng(0).standard_normal((1000, 32)).astype(np.float32)
    vectors = random / np.linalg.norm(random, axis=1, keepdims=True)
    content = EmbeddingSnapshot("1:1:", np.arange(1000, dtype=np.int64), vectors)
    real = vectors[:300] * -1
    benchmark = RecallBenchmark(content, real=real, sample=100)
    np.testing.assert_array_equal(benchmark.queries[:50], real[:50])
    assert len(benchmark.queries) == 100
    assert benchmark.recall(faiss_index.build(content.ids, vectors)) == 1


def test_a_build_records_recall_at_fifty(app: App) -> None:
    add(app, numbered(80))
    build = app.indexer.rebuild()
    assert (build.recall_at_10, build.recall_at_50) == (1.0, 1.0)


class Forgetful:
    """An index that misses some of its rows, unless a selector names them."""

    def __init__(self, index: faiss_index.AnnIndex) -> None:
        self._index = index
        self.rows = index.rows
        self.pool = index.pool

    def search(self, queries, k, depth=None, *, selector=None):  # type: ignore[no-untyped-def]
        similarities, ids = self._index.search(queries, k, depth, selector=selector)
        return similarities, np.where(ids % 4 > 0, ids, -1)


def test_a_build_is_measured_with_filters_too() -> None:
    random = np.random.default_rng(0).standard_normal((3000, 32)).astype(np.float32)
    vectors = random / np.linalg.norm(random, axis=1, keepdims=True)
    content = EmbeddingSnapshot("1:1:", np.arange(3000, dtype=np.int64), vectors)
    benchmark = RecallBenchmark(content, sample=100)
    index = faiss_index.build(content.ids, vectors)
    assert benchmark.filtered_recall(index) == 1
    assert 0.6 < benchmark.filtered_recall(Forgetful(index)) < 0.9  # type: ignore[arg-type]


def test_a_build_whose_filtered_searches_fall_short_is_rejected(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(80), category="Coat")
    first = app.indexer.rebuild()
    assert first.recall_filtered == 1.0
    monkeypatch.setattr(RecallBenchmark, "filtered_recall", lambda self, index: 0.5)
    second = app.indexer.rebuild()
    assert (second.state, second.recall_filtered) == ("rejected", 0.5)
    assert "filtered recall@10 is 0.500" in str(second.reason)


def test_an_audit_of_a_good_build_measures_full_recall(app: App) -> None:
    add(app, numbered(120))
    build = app.indexer.rebuild()
    add(app, numbered(20, first=120))
    found = audit(app.engine, app.files, app.settings, 40)
    assert (found.build, found.queries, found.by_faiss) == (build.id, 40, 40)
    assert (found.recall_at_10, found.recall_at_50, found.recorded) == (1.0, 1.0, 1.0)


def test_an_audit_detects_an_index_that_returns_wrong_rows(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(200), category="Coat")
    add(app, numbered(100, first=200), category="Hat")
    sql.execute("INSERT INTO tuning (model_id, exact_pictures, deep_share) VALUES (1, 1, 0.001)")
    app.indexer.rebuild()
    nominate = faiss_index.AnnIndex.nominate
    monkeypatch.setattr(
        faiss_index.AnnIndex,
        "nominate",
        lambda self, query, n, depth=None, *, selector=None, **kwargs: Nominees(
            nominate(self, -query, n, selector=selector, **kwargs).ids, -2.0
        ),
    )
    found = audit(app.engine, app.files, app.settings, 20)
    assert found.recall_at_10 < 0.9
    assert found.recall_filtered < 0.9


def test_the_command_prints_the_audit(
    app: App, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.cli.index import index

    add(app, numbered(30))
    app.indexer.rebuild()
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", str(settings.database_url))
    monkeypatch.setenv("LOOKALIKE_HOME", str(settings.home))
    done = CliRunner().invoke(index, ["audit", "--json", "--queries", "10"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["recall_at_10"] == 1.0
