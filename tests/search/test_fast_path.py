"""FastPath: when it answers in one statement, and that the planner answers otherwise."""

from __future__ import annotations

import re
import threading
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.engine import EXTRA_SEARCH_CONNECTIONS
from app.errors import DatabaseUnavailable, ModelMismatch, NoModel
from app.types import Query
from support.colours import ColourEncoder, choose_colours, photo
from support.copies import copied_for
from support.fallback import build_pgvector_index
from support.fast_path_shop import ask, fill, seen
from support.servers import wait_until
from support.shop import add, numbered, oracle, vectors
from support.statements import Slow

database_url = copied_for("slow", fill)


def prepared(app: App) -> list[tuple[str, int]]:
    """Name and number of values of the prepared statements of the pool's one connection."""
    raw = app.fast_engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute(
            "SELECT name, cardinality(parameter_types) FROM pg_prepared_statements"
            " WHERE statement LIKE 'WITH delta%'"
        )
        return list(cursor.fetchall())
    finally:
        raw.close()


def test_the_fast_path_gives_the_same_result_as_the_planner(
    app: App, slow: Slow, settings: Settings
) -> None:
    found = [ask(app, seed, k) for seed, k in ((1000, 10), (1001, 1), (1002, 200), (1003, 1000))]
    assert not slow.took()
    assert all(result.plan.path == "faiss" for result in found)
    for result, (seed, k) in zip(
        found, ((1000, 10), (1001, 1), (1002, 200), (1003, 1000)), strict=True
    ):
        with App(settings, choose=choose_colours) as other:
            first = ask(other, seed, k)  # knows of no build yet
        assert seen(result) == seen(first)
        assert result.plan.shortfall == first.plan.shortfall
        assert [m.product for m in result.matches] == [m.product for m in first.matches]


def test_a_picture_is_searched_in_one_statement(app: App, slow: Slow) -> None:
    found = app.search.search(Query(picture=photo(7)))
    assert found.matches[0].product.sku == "P0007"
    assert not slow.took()


def test_the_fast_path_sees_recent_writes(app: App, slow: Slow, sql: psycopg.Connection) -> None:
    add(app, {"NEW": [1000]})
    slow.took()
    assert ask(app).matches[0].product.sku == "NEW"
    sql.execute("UPDATE product SET title = 'another' WHERE sku = 'NEW'")
    assert ask(app).matches[0].product.title == "another"
    sql.execute("DELETE FROM product WHERE sku = 'NEW'")
    assert "NEW" not in [match.product.sku for match in ask(app).matches]
    assert not slow.took()


def test_a_newer_build_is_used_by_the_next_search(app: App, slow: Slow) -> None:
    newer = app.indexer.rebuild()
    slow.took()
    assert ask(app).plan.build == newer.id
    assert slow.took()
    assert ask(app).plan.build == newer.id
    assert not slow.took()


def test_a_build_that_was_retired_is_not_used(
    app: App, slow: Slow, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE index_build SET state = 'retired'")
    assert ask(app).plan.path == "exact"


def test_a_build_is_not_used_once_rows_may_have_changed_unstamped(
    app: App, slow: Slow, sql: psycopg.Connection
) -> None:
    sql.execute("ALTER TABLE embedding_m1 DISABLE TRIGGER embedding_stamp")
    sql.execute("ALTER TABLE embedding_m1 ENABLE ALWAYS TRIGGER embedding_stamp")
    assert ask(app).plan.path == "exact"


def test_another_model_is_noticed(app: App, slow: Slow, sql: psycopg.Connection) -> None:
    other = ColourEncoder("others")
    sql.execute("SELECT register_model(%s, '1', 49, %s)", [other.name, other.fingerprint])
    sql.execute("UPDATE model SET active = false WHERE active")
    sql.execute("UPDATE model SET active = true WHERE name = 'others'")
    assert ask(app).plan.model == "colours", "a vector of the former model, still kept up to date"
    sql.execute("UPDATE model SET maintained = false WHERE name = 'colours'")
    with pytest.raises(ModelMismatch, match="The query is for model 1"):
        ask(app)
    plan = app.search.search(Query(picture=photo(3))).plan
    assert plan.model == "others" and plan.shortfall


def test_pictures_next_to_a_vector_are_encoded_under_its_model(
    app: App, slow: Slow, sql: psycopg.Connection
) -> None:
    """The process still holds the previous encoder as the active one."""
    other = ColourEncoder("others")
    sql.execute("SELECT register_model(%s, '1', 49, %s)", [other.name, other.fingerprint])
    sql.execute("UPDATE model SET active = false WHERE active")
    sql.execute("UPDATE model SET active = true WHERE name = 'others'")
    sql.execute("INSERT INTO embedding (model_id, picture_id, vec) SELECT 2, picture_id, vec"
                " FROM embedding WHERE model_id = 1")  # fmt: skip
    app.indexer.rebuild()
    plain = Query(vector=vectors(app, [1000])[0], model_id=2)
    assert app.search.search(plain).plan.path == "faiss"
    found = app.search.search(replace(plain, without_pictures=(photo(3),)))
    assert found.plan.model == "others" and set(app.encoders._by_model) >= {2}


def test_busy_connections_give_a_message_and_do_not_affect_results(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.search_engine.pool, "_timeout", 0.2)
    held = [
        app.search_engine.connect() for _ in range(app.settings.places + EXTRA_SEARCH_CONNECTIONS)
    ]
    try:
        app.search._calibrations._read_at.clear()  # type: ignore[union-attr]
        assert len(ask(app).matches) == 10
        with pytest.raises(DatabaseUnavailable, match="busy"):
            app.search.search(Query(words="title"))
    finally:
        for connection in held:
            connection.close()
    assert len(app.search.search(Query(sku="P0001")).matches) == 10


def test_a_large_delta_is_left_to_the_planner(settings: Settings) -> None:
    with App(settings.model_copy(update={"max_delta_rows": 3}), choose=choose_colours) as app:
        add(app, numbered(60))
        app.indexer.rebuild()
        assert ask(app).plan.path == "faiss"
        add(app, numbered(3, first=60))
        assert (ask(app).plan.path, ask(app).plan.delta_rows) == ("faiss", 3)
        add(app, numbered(1, first=63))
        assert ask(app).plan.path == "exact"


def test_lost_connections_are_not_an_error(app: App, slow: Slow, sql: psycopg.Connection) -> None:
    before = seen(ask(app))
    sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert seen(ask(app)) == before
    assert slow.took()
    assert seen(ask(app)) == before
    assert not slow.took()


def test_a_search_that_timed_out_is_not_repeated(settings: Settings) -> None:
    hasty = settings.model_copy(update={"statement_timeout_s": 0.3})
    with App(hasty, choose=choose_colours) as app, psycopg.connect(settings.database_url) as sql:
        add(app, numbered(60))
        app.indexer.rebuild()
        ask(app)
        slow = Slow(app)
        sql.execute("LOCK TABLE product_picture")
        with pytest.raises(DatabaseUnavailable, match="too long"):
            ask(app)
        assert not slow.took()
        sql.rollback()
        assert len(ask(app).matches) == 10


def test_the_order_is_that_of_exact_distances(
    app: App, slow: Slow, sql: psycopg.Connection
) -> None:
    rows = {
        id_: np.array([float(x) for x in vec.strip("[]").split(",")])
        for id_, vec in sql.execute("SELECT picture_id, vec::text FROM embedding")
    }
    result = ask(app, 1005, k=20)
    expected = oracle(rows, vectors(app, [1005])[0], 20)
    assert [match.picture_id for match in result.matches] == [id_ for id_, _ in expected]
    assert [match.similarity for match in result.matches] == pytest.approx(
        [1 - distance for _, distance in expected], abs=1e-6
    )


def plans(app: App) -> list[str]:
    """The plans of the prepared statements."""
    statements = prepared(app)
    raw, found = app.fast_engine.raw_connection(), []
    for name, values in statements:
        cursor = raw.cursor()
        cursor.execute(f"EXPLAIN EXECUTE {name}({', '.join(['NULL'] * values)})")
        found.append("\n".join(row[0] for row in cursor.fetchall()))
    raw.close()
    return found


def test_the_statement_is_planned_once_without_sequential_scans(app: App, slow: Slow) -> None:
    build_pgvector_index(app)
    for k in (1, 10, 1000):
        ask(app, k=k)
    [planned] = plans(app)  # one: the types of the values never change
    assert "Seq Scan" not in planned
    assert "embedding_m1_changed_in_idx" in planned
    assert "embedding_m1_ivf1_idx" not in planned
    assert "pg_snapshot_xmax($" in planned, "the plan is for all values"


def test_the_statement_that_folds_is_planned_once_without_sequential_scans(
    app: App, slow: Slow
) -> None:
    [vector] = vectors(app, [1000])
    for k in (1, 10, 100):
        query = Query(vector=vector, model_id=1, k=k, fold=True)
        found = app.search.search(query)
        app.search.search(replace(query, shown=found.shown))
    assert not slow.took()
    first_page, later_page = plans(app)  # which passes over the pictures of the first
    assert "CTE over" not in first_page and "CTE over" in later_page
    for planned in (first_page, later_page):
        assert "duplicate_verdict" in planned and "calibration_pkey" in planned
        assert "Seq Scan" not in planned and "embedding_m1_ivf1_idx" not in planned
        nodes = zip(planned.splitlines(), planned.splitlines()[1:], strict=False)
        whole = [
            node for node, detail in nodes
            if re.search("Index (Only )?Scan", node) and "Index Cond" not in detail
        ]  # fmt: skip
        assert all("model_active_idx" in node for node in whole), "an index is read completely"


def test_a_process_that_is_warm_answers_its_first_search_in_one_statement(
    app: App, slow: Slow, settings: Settings
) -> None:
    with App(settings, choose=choose_colours) as other:
        assert not other.is_warm
        other.warm_soon()
        fast_path = other.search._fast_path
        assert fast_path is not None
        wait_until(lambda: other.is_warm, "nothing is loaded in advance")
        assert fast_path.last_build is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(other.search, "_in_one_snapshot", None)
            assert ask(other).plan.path == "faiss"


def test_what_prevents_loading_in_advance_is_left_to_the_first_search(
    app: App, settings: Settings, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE model SET active = false")
    with App(settings, choose=choose_colours) as other:
        other._warm()
        assert not other.is_warm
        with pytest.raises(NoModel):
            other.search.search(Query(picture=photo(7)))


def test_closing_waits_for_what_is_loaded_in_advance(
    app: App, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on, opened = threading.Event(), threading.Event(), []
    other = App(settings, choose=choose_colours)

    def open_index() -> None:
        began.set()
        assert go_on.wait(300)
        opened.append(not other._closing.is_set())

    monkeypatch.setattr(other.search, "open_index", open_index)
    other.warm_soon()
    assert began.wait(300)
    closing = threading.Thread(target=other.close)
    closing.start()
    wait_until(other._closing.is_set, "it does not close")
    assert closing.is_alive()
    go_on.set()
    closing.join(300)
    assert opened == [False] and not other.is_warm, "nothing more is loaded"
