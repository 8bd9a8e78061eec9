"""SearchService: every path returns the exact result as of the start of the search."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.engine import snapshot
from app.db.queries import index_delta
from app.db.queries.nearest import TOLERANCE
from app.index import faiss_index
from app.search.planner import find
from app.search.retrieval import RetrievalRequest
from app.types import Filters, Query, SearchResult
from support.colours import choose_colours
from support.exact import assert_exact, expected, skus
from support.fallback import build_pgvector_index
from support.search_checks import ask
from support.shop import add, numbered, vectors

# Which path answers


def test_without_a_build_the_table_is_searched_exactly(app: App) -> None:
    add(app, numbered(100))
    result = ask(app)
    assert result.plan.path == "exact"
    assert result.plan.reason == "no index has been built yet"
    assert_exact(app, result, list(range(100)), 1000, 10)


def test_a_build_gives_the_same_result_as_the_exact_scan(app: App) -> None:
    add(app, numbered(100))
    before = ask(app)
    build = app.indexer.rebuild()
    after = ask(app)
    assert (after.plan.path, after.plan.build, after.plan.delta_rows) == ("faiss", build.id, 0)
    assert [(m.product, m.similarity) for m in before.matches] == [
        (m.product, m.similarity) for m in after.matches
    ]


def test_a_product_added_after_the_build_is_found(app: App) -> None:
    add(app, numbered(60))
    app.indexer.rebuild()
    add(app, {"NEW": [1000]})
    result = ask(app)
    assert (result.plan.path, result.plan.delta_rows) == ("faiss", 1)
    assert skus(result)[0] == "NEW"
    assert result.matches[0].similarity == pytest.approx(1, abs=1e-6)


def test_a_product_deleted_after_the_build_is_gone(app: App) -> None:
    add(app, {**numbered(60), "GONE": [1000]})
    app.indexer.rebuild()
    assert skus(ask(app))[0] == "GONE"
    app.catalog.delete(["GONE"])
    result = ask(app)
    assert result.plan.path == "faiss"
    assert_exact(app, result, list(range(60)), 1000, 10)


def test_a_product_with_another_photo_is_found_by_the_new_one_only(app: App) -> None:
    add(app, {**numbered(60), "X": [1000]})
    app.indexer.rebuild()
    add(app, {"X": [2000]})
    assert skus(ask(app, 2000))[0] == "X"
    assert ask(app, 1000).matches[0].similarity < 0.99


def test_an_embedding_changed_by_hand_is_searched_as_it_is_now(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(60))
    app.indexer.rebuild()
    new = "[" + ",".join(map(str, vectors(app, [1000])[0].tolist())) + "]"
    sql.execute(
        "UPDATE embedding SET vec = %s::halfvec, changed_in = '3' WHERE picture_id ="
        " (SELECT picture_id FROM product_picture JOIN product ON id = product_id"
        "  WHERE sku = 'P0007')",
        [new],
    )
    result = ask(app)
    assert (result.plan.path, result.plan.delta_rows) == ("faiss", 1)
    assert skus(result)[0] == "P0007"


def test_most_of_the_index_may_vanish_and_the_page_is_full(app: App) -> None:
    seeds = list(range(400))
    add(app, numbered(400))
    app.indexer.rebuild()
    far = [sku for sku, _ in expected(app, seeds, 1000, 400)][-20:]
    app.catalog.delete([f"P{n:04}" for n in seeds if f"P{n:04}" not in far])
    result = ask(app, k=15)
    kept = [int(sku[1:]) for sku in far]
    assert_exact(app, result, kept, 1000, 15)
    assert result.plan.shortfall is None


def test_a_delta_that_is_too_large_is_left_to_pgvector(settings: Settings) -> None:
    few = settings.model_copy(update={"max_delta_rows": 5})
    with App(few, choose=choose_colours) as app:
        add(app, numbered(30))
        app.indexer.rebuild()
        add(app, numbered(6, first=30))
        result = ask(app)
        assert result.plan.path == "exact"
        assert "more than 5 embeddings changed" in result.plan.reason
        assert_exact(app, result, list(range(36)), 1000, 10)


def test_pgvectors_index_answers_a_large_table_without_a_build(settings: Settings) -> None:
    small = settings.model_copy(update={"exact_rows": 50})
    with App(small, choose=choose_colours) as app:
        add(app, numbered(300))
        build_pgvector_index(app)
        result = ask(app)
        assert result.plan.path == "pgvector"
        near = {sku for sku, _ in expected(app, list(range(300)), 1000, 10)}
        assert len(near & set(skus(result))) >= 9


def test_pgvectors_index_never_ends_a_short_page(settings: Settings) -> None:
    small = settings.model_copy(update={"exact_rows": 50})
    with App(small, choose=choose_colours) as app:
        add(app, numbered(300))
        build_pgvector_index(app)
        result = ask(app, k=301)
        assert (result.plan.path, len(result.matches)) == ("exact", 300)
        assert result.plan.shortfall is not None


@pytest.mark.parametrize("exact_rows", [0, 20_000])
def test_a_product_of_many_near_pictures_does_not_shorten_the_page(
    settings: Settings, sql: psycopg.Connection, exact_rows: int
) -> None:
    """Its pictures fill the first fetch of the exact scan and of pgvector's index."""
    few = settings.model_copy(update={"exact_rows": exact_rows})
    with App(few, choose=choose_colours) as app:
        add(app, {"MANY": list(range(5000, 5090)), "P1": [1], "P2": [2], "P3": [3]})
        turn(sql, "MANY", 0.95)
        turn(sql, "P1", 0.9)
        turn(sql, "P2", 0.8)
        turn(sql, "P3", 0.7)
        assert skus(axis(app, k=3)) == ["MANY", "P1", "P2"]


def test_inverted_lists_give_the_same_result_as_the_exact_scan(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 20)
    add(app, numbered(400))
    before = {k: ask(app, k=k) for k in (1, 10, 48, 150, 300)}
    build = app.indexer.rebuild()
    assert build.kind in ("ivf", "rabitq")
    after = {k: ask(app, k=k) for k in before}
    for k in before:
        assert after[k].plan.path == "faiss"
        shared = set(skus(before[k])) & set(skus(after[k]))
        assert len(shared) >= 0.97 * k
    add(app, {"NEW": [1000]})
    app.catalog.delete([skus(after[1])[0]])
    assert [skus(ask(app, k=k))[0] for k in before] == ["NEW"] * len(before)


def test_a_build_is_trusted_only_a_little_nearer_than_its_last_nominee(app: App) -> None:
    """FAISS and PostgreSQL round differently: rows near the cutoff may be in another order."""
    add(app, numbered(40))
    build = app.indexer.rebuild()
    query = vectors(app, [1000])[0].astype(np.float16).astype(np.float32)
    with snapshot(app.engine) as connection:
        found, _ = index_delta.nearest(
            connection, app.catalog.model(), build, query, np.arange(1, 21), 0.5,
            n=20, k=5, excluded=(), max_delta_rows=10, known=None,
        )  # fmt: skip
    assert found.seen_to == 0.5 - TOLERANCE


# Snapshots


def test_a_search_does_not_use_a_build_newer_than_its_snapshot(
    app: App, sql: psycopg.Connection
) -> None:
    """A build made from a later moment lacks a row that was deleted in between."""
    add(app, {**numbered(60), "GONE": [1000]})
    first = app.indexer.rebuild()
    query = vectors(app, [1000])[0].astype(np.float16).astype(np.float32)
    with snapshot(app.engine) as connection:
        model = app.catalog.model()
        connection.exec_driver_sql("SELECT 1 FROM product LIMIT 1")
        app.catalog.delete(["GONE"])
        second = app.indexer.rebuild()
        answer = find(
            RetrievalRequest(model, query, 5, connection=connection), app.files, app.settings
        )
    assert second.id > first.id
    assert (answer.path, answer.build) == ("faiss", first)
    assert answer.candidates.hits[0].distance < 1e-6


def test_rows_of_a_transaction_that_was_open_during_the_build_are_found(
    app: App, database_url: str
) -> None:
    """Its number is below the snapshot's end, yet the build did not see it."""
    add(app, {**numbered(60), "X": [2000]})
    vector = "[" + ",".join(map(str, vectors(app, [1000])[0].tolist())) + "]"
    with psycopg.connect(database_url) as early, psycopg.connect(database_url) as late:
        early.execute(
            "UPDATE embedding SET vec = %s::halfvec WHERE picture_id ="
            " (SELECT picture_id FROM product_picture JOIN product ON id = product_id"
            "  WHERE sku = 'X')",
            [vector],
        )
        late.execute("UPDATE product SET year = 2020 WHERE sku = 'P0001'")
        late.commit()
        app.indexer.rebuild()
        assert skus(ask(app))[0] != "X"
        early.commit()
    result = ask(app)
    assert (result.plan.path, result.plan.delta_rows) == ("faiss", 1)
    assert skus(result)[0] == "X"


def test_an_aborted_change_changes_nothing(app: App, database_url: str) -> None:
    add(app, numbered(60))
    app.indexer.rebuild()
    before = skus(ask(app))
    with psycopg.connect(database_url) as other:
        other.execute("UPDATE embedding SET vec = vec")
        other.rollback()
    result = ask(app)
    assert (skus(result), result.plan.delta_rows) == (before, 0)


# The bound: what an index did not nominate may be nearer than what the delta holds


def turn(sql: psycopg.Connection, sku: str, cosine: float) -> None:
    """Give all pictures of products whose sku has a prefix this cosine to the first axis."""
    vector = [cosine, (1 - cosine**2) ** 0.5, *[0.0] * 47]
    sql.execute(
        "UPDATE embedding SET vec = %s::halfvec WHERE picture_id IN (SELECT picture_id"
        " FROM product_picture JOIN product ON id = product_id WHERE starts_with(sku, %s))",
        [str(vector), sku],
    )


def axis(app: App, k: int) -> SearchResult:
    """Search with the first axis."""
    vector = np.eye(1, 49, dtype=np.float32)[0]
    return app.search.search(Query(vector=vector, model_id=app.catalog.model().id, k=k))


def test_a_new_product_with_many_pictures_does_not_hide_another(
    app: App, sql: psycopg.Connection
) -> None:
    """Its pictures fill the part of the delta that is fetched first; the index has no others."""
    add(app, numbered(12))
    turn(sql, "P", 0.5)
    app.indexer.rebuild()
    add(app, {"MANY": list(range(5000, 5090)), "OTHER": [6000]})
    turn(sql, "MANY", 0.95)
    turn(sql, "OTHER", 0.9)
    assert skus(axis(app, k=3)) == ["MANY", "OTHER", "P0000"]


def test_a_nominated_row_that_changed_counts_as_vanished(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(40))
    app.indexer.rebuild()
    turn(sql, "P0003", 0.95)
    plan = axis(app, k=40).plan
    assert (plan.path, plan.vanished, plan.delta_rows, plan.candidates) == ("faiss", 1, 1, 40)


def test_a_far_delta_does_not_replace_near_rows_that_were_not_nominated(app: App) -> None:
    seeds = list(range(300))
    add(app, numbered(300))
    app.indexer.rebuild()
    ranked = [sku for sku, _ in expected(app, seeds, 1000, 300)]
    app.catalog.delete(ranked[:40])
    add(app, numbered(50, first=7000))
    result = ask(app, k=5)
    left = [int(sku[1:]) for sku in ranked[40:]] + list(range(7000, 7050))
    assert_exact(app, result, left, 1000, 5)


# Pictures and products


def test_a_picture_shared_by_several_products_returns_all_of_them(app: App) -> None:
    add(app, {**numbered(30), "A": [1000], "B": [1000], "C": [1000, 3]})
    for _ in range(2):
        assert skus(ask(app))[:3] == ["A", "B", "C"]
        app.indexer.rebuild()


def test_a_product_is_found_once_by_its_best_picture(app: App) -> None:
    add(app, {**numbered(30), "TWO": [500, 1000]})
    for _ in range(2):
        result = ask(app)
        assert skus(result).count("TWO") == 1
        assert result.matches[0].image == "1000.png"
        app.indexer.rebuild()


def test_a_placeholder_of_many_products_does_not_keep_others_from_being_found(app: App) -> None:
    shared = {f"Q{n:04}": [1000] for n in range(300)}
    add(app, {**numbered(30), **shared})
    for _ in range(2):
        found = skus(ask(app, k=330))
        assert len(found) == len(set(found)) == 330
        app.indexer.rebuild()


def test_equal_similarities_come_in_the_order_of_ids_on_every_path(app: App) -> None:
    add(app, {f"S{n}": [1000] for n in (5, 3, 9, 1)})
    for _ in range(2):
        assert skus(ask(app)) == ["S1", "S3", "S5", "S9"]
        assert skus(ask(app, k=2)) == ["S1", "S3"]
        app.indexer.rebuild()


def test_a_search_by_sku_excludes_the_product_itself(app: App) -> None:
    add(app, {**numbered(30), "TWIN": [7]})
    for _ in range(2):
        result = app.search.search(Query(sku="P0007", k=40))
        assert skus(result)[0] == "TWIN"
        assert "P0007" not in skus(result)
        assert len(result.matches) == 30
        app.indexer.rebuild()


def test_a_filter_is_applied_before_the_top_k(app: App) -> None:
    add(app, numbered(50), brand="Kestrel")
    add(app, numbered(50, first=50), brand="Tidewater", attributes={"packaged": "1"})
    app.indexer.rebuild()
    for filters in (Filters({"brand": "Tidewater"}), Filters(attributes={"packaged": "1"})):
        result = ask(app, k=20, filters=filters)
        assert_exact(app, result, list(range(50, 100)), 1000, 20)
