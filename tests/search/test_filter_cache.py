"""FilterCache: repeated filters are answered from cached ids, read once and kept within limits."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Connection

from app.bootstrap import App
from app.db.queries import filter_snapshot, nearest
from app.db.queries.filter_snapshot import FilterIdList
from app.db.queries.nearest import FilterClause
from app.index.faiss_index import CODES, AnnIndex, inverted_lists
from app.index.faiss_index import add as add_rows
from app.index.id_selectors import IdSelector
from app.index.selected_rows import SelectedRows
from app.search import fast_path, filter_cache
from app.search.adaptive_fetch import RETRIAL_SEARCHES
from app.search.filter_cache import CachedFilter, FilterCache
from app.search.filters import parse
from app.search.retrieval import IndexFetch, deep_round
from support.copies import copied_for
from support.filtered_shop import RED, ask, expected, fill, skus

database_url = copied_for("shop", fill)


def test_a_repeated_filter_is_answered_in_one_statement(
    shop: App, in_turn: list[str], sql: psycopg.Connection
) -> None:
    result = ask(shop)
    assert in_turn == []
    assert skus(result) == expected(shop, sql, "colour = 'red'")
    assert result.plan.path == "faiss-filtered" and "among what passes" in result.plan.reason
    assert result.plan.vanished == 0


def test_a_filter_whose_products_lie_far_away_is_searched_among_what_passes_for_a_while(
    shop: App, sql: psycopg.Connection
) -> None:
    near = expected(shop, sql, "true", 110)
    sql.execute("UPDATE product SET brand = CASE WHEN sku = ANY(%s) THEN 'a' ELSE 'b' END", [near])
    for brand, said in (("a", "deeper"), ("b", "among what passes")):
        for _ in range(3):
            result = ask(shop, words=f"brand={brand}")
            assert skus(result) == expected(shop, sql, f"brand = '{brand}'")
        assert said in result.plan.reason
    cached = shop.search._fast_path._filters.get(nearest.filter_clause(parse(["brand=b"])))  # type: ignore[union-attr]
    assert cached is not None
    skipped = [cached.far.skips() for _ in range(RETRIAL_SEARCHES)]
    assert any(skipped) and not skipped[-1], "a later search looks deeper again"


@pytest.mark.parametrize(
    ("nprobe", "share", "deeper"),
    [(8, 0.17, True), (8, 0.001, False), (1500, 0.17, False), (1500, 0.9, True)],
)
def test_a_filtered_search_begins_in_the_nearest_lists_where_these_are_fewer_rows(
    nprobe: int, share: float, deeper: bool
) -> None:
    tuned = {"nlist": 2000, "nprobe": {"10": 8, "200": nprobe}, "pool": {"10": 35, "200": 400}}
    index = AnnIndex(SimpleNamespace(ntotal=1_000_000, d=512), "rabitq", tuned)
    fetch = IndexFetch(12)
    assert fast_path._is_faster(index, deep_round(fetch, share), fetch, share) == deeper


def test_the_cache_stays_within_its_memory_and_count(
    shop: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = FilterCache(shop.engine, max_bytes=100)
    filters = [nearest.filter_clause(parse([f"year>={year}"])) for year in range(30)]
    for each in (*filters, *filters):
        lists.get(each)
    assert 0 < lists.nbytes <= 100
    monkeypatch.setattr("app.search.filter_cache.MAX_FILTERS", 5)
    lists.get(nearest.filter_clause(RED))
    assert len(lists) == 5


def test_rows_that_pass_are_copied_from_the_second_search_on(
    shop: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.arange(1, 4001, dtype=np.int64)
    rows = np.random.default_rng(0).standard_normal((len(ids), 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = (inverted_lists(rows[:20].copy(), CODES[0]) for _ in range(2))
    for index in (first, second):
        add_rows(index, ids, rows)
    red = nearest.filter_clause(RED)

    def cached_in(lists: FilterCache) -> CachedFilter:
        cached = lists.get(red) or lists.get(red)
        assert cached is not None
        return cached

    lists = FilterCache(shop.engine)
    cached = cached_in(lists)
    without = lists.nbytes
    lists.copy_rows(red, cached, first)
    assert cached.selector.copied is None and lists.nbytes == without
    for index in (first, second, second):
        lists.copy_rows(red, cached, index)
        copied = cached.selector.copied
        assert copied is not None and copied.are_of(index.faiss_index)
        assert lists.nbytes == without + copied.nbytes > without
    lists.forget(red)
    assert lists.nbytes == 0
    lists.copy_rows(red, cached, first)
    assert lists.nbytes == 0, "what a search still holds is not counted"

    made: list[object] = []

    def nested(*of: Any) -> SelectedRows:
        made.append(of)
        lists.copy_rows(red, cached, second)  # as another search does meanwhile
        return SelectedRows(*of)

    monkeypatch.setattr(filter_cache, "SelectedRows", nested)
    lists.copy_rows(red, cached, second)
    assert len(made) == 1, "concurrent searches do not copy the same rows"
    assert cached.selector.copied is not None
    assert cached.selector.copied.are_of(second.faiss_index)

    lists = FilterCache(shop.engine, max_bytes=500)
    cached = cached_in(lists)
    for _ in range(3):
        lists.copy_rows(red, cached, first)
    assert cached.selector.copied is None


def test_the_size_of_dense_and_sparse_selectors_is_counted() -> None:
    dense, sparse = np.arange(80_000, dtype=np.int64), np.arange(10, dtype=np.int64) * 10**11
    assert IdSelector(dense).nbytes == 10_000
    assert IdSelector(sparse).nbytes >= sparse.nbytes


def test_an_unknown_attribute_is_reported_at_every_repetition(shop: App) -> None:
    for _ in range(4):
        plan = ask(shop, words="collour=red").plan
        assert "did you mean colour" in (plan.shortfall or "")


def test_a_new_build_is_used_however_few_products_pass(shop: App, in_turn: list[str]) -> None:
    shop.indexer.rebuild()
    ask(shop)
    in_turn.clear()
    assert "build 2" in ask(shop).plan.reason and in_turn == []


def test_ids_that_cannot_be_read_are_not_retried_at_every_search(
    shop: App, in_turn: list[str], sql: psycopg.Connection
) -> None:
    sql.execute("ALTER TABLE product ENABLE TRIGGER product_stamp")  # not ALWAYS
    for _ in range(5):
        ask(shop, words="colour=blue")
    assert sum("AS standby" in statement for statement in in_turn) == 1


def test_a_search_goes_on_without_ids_that_take_long_to_read(
    shop: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.search.filter_cache.WAIT_S", 0.0)
    begun, go, reads = threading.Event(), threading.Event(), list[str]()
    read = filter_snapshot.read

    def slow(connection: Connection, clause: FilterClause) -> FilterIdList | None:
        reads.append(threading.current_thread().name)
        begun.set()
        assert go.wait(60)
        return read(connection, clause)

    monkeypatch.setattr(filter_snapshot, "read", slow)
    wanted = expected(shop, sql, "colour = 'blue'")
    for _ in range(4):
        found = ask(shop, words="colour=blue")
        assert skus(found) == wanted
    other = ask(shop, words="sku=P0005"), ask(shop, words="sku=P0005")
    assert [skus(each) for each in other] == [["P0005"]] * 2
    assert begun.wait(60) and reads == ["filter ids"], "one at a time, and none twice"
    go.set()
    lists, clause = FilterCache(shop.engine), nearest.filter_clause(parse(["colour=blue"]))
    monkeypatch.setattr("app.search.filter_cache.WAIT_S", 60.0)
    assert lists.get(clause) is None and lists.get(clause) is not None


def test_long_filters_take_no_more_memory_than_short_ones(shop: App) -> None:
    lists = FilterCache(shop.engine)
    for n in range(20):
        lists.get(nearest.filter_clause(parse([f"sku=S{n}-{each}" for each in range(500)])))
    assert sum(len(key) for key in lists._entries) < 20 * 100
