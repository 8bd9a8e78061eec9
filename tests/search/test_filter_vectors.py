"""The vectors of what passes a repeated filter are read, and stand for the rows of the build."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from app.bootstrap import App
from app.db.engine import snapshot
from app.db.queries import filter_snapshot, nearest
from app.index import faiss_index
from app.index.faiss_index import CODES, AnnIndex, inverted_lists
from app.index.faiss_index import add as add_rows
from app.index.id_selectors import ExcludedIds, IdSelector
from app.index.selected_rows import SelectedRows
from app.index.selected_vectors import SelectedVectors
from app.search import fast_path, filter_cache
from app.search.filter_cache import CachedFilter
from support.copies import copied_for
from support.filtered_shop import RED, ask, expected, fill, read_vectors_at_once, skus
from support.index_vectors import unit
from support.recall_queries import few_queries
from support.shop import add, numbered

database_url = copied_for("shop", fill)


@pytest.fixture
def compressed(shop: App, monkeypatch: pytest.MonkeyPatch) -> App:
    """The shop with an index of 2 bits a number, of which all that passes is searched."""
    few_queries(monkeypatch)
    read_vectors_at_once(monkeypatch)
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 20)
    monkeypatch.setattr(fast_path, "_is_faster", lambda *_: False)
    assert shop.indexer.rebuild().kind == "rabitq"
    return shop


def cached_in(app: App) -> CachedFilter:
    assert app.search._fast_path is not None
    cached = app.search._fast_path._filters.get(nearest.filter_clause(RED))
    assert cached is not None
    return cached


def asked_often(app: App) -> CachedFilter:
    """The filter, after so many searches that the vectors were read."""
    for _ in range(4):
        ask(app)
    return cached_in(app)


def test_vectors_take_the_place_of_the_rows_and_need_few_nominees(
    compressed: App, sql: psycopg.Connection
) -> None:
    add(compressed, numbered(100, first=1000), colour="red")
    compressed.indexer.rebuild()
    assert compressed.search._fast_path is not None
    compressed.search._fast_path._filters.forget(nearest.filter_clause(RED))
    cached = asked_often(compressed)
    assert isinstance(cached.selector.copied, SelectedVectors)
    assert cached.nbytes == cached.selector.nbytes + cached.selector.copied.nbytes
    for k in (1, 5, 40):
        result = ask(compressed, k=k)
        assert skus(result) == expected(compressed, sql, "colour = 'red'", k)
        assert result.plan.candidates == k + 16 and result.plan.path == "faiss-filtered"


def test_embeddings_that_change_after_their_vectors_were_read_count_as_they_are_now(
    compressed: App, sql: psycopg.Connection
) -> None:
    copied = asked_often(compressed).selector.copied
    assert isinstance(copied, SelectedVectors)
    before = expected(compressed, sql, "colour = 'red'")
    sql.execute(
        "WITH shown AS (SELECT sku, picture_id, vec FROM product JOIN product_picture"
        " ON product_id = product.id JOIN embedding USING (picture_id) WHERE sku = ANY(%s))"
        " UPDATE embedding SET vec = (SELECT vec FROM shown AS o WHERE o.sku <> shown.sku)"
        " FROM shown WHERE shown.picture_id = embedding.picture_id",
        [[before[0], before[-1]]],
    )
    after = expected(compressed, sql, "colour = 'red'")
    assert after[0] == before[-1]
    assert skus(ask(compressed)) == after
    assert cached_in(compressed).selector.copied is copied


def test_vectors_of_a_new_build_are_read_anew(compressed: App, sql: psycopg.Connection) -> None:
    copied = asked_often(compressed).selector.copied
    add(compressed, numbered(5, first=1000), colour="red")
    compressed.indexer.rebuild()
    assert skus(ask(compressed)) == expected(compressed, sql, "colour = 'red'")
    again = asked_often(compressed).selector.copied
    assert isinstance(again, SelectedVectors) and again is not copied
    assert skus(ask(compressed)) == expected(compressed, sql, "colour = 'red'")


def test_a_read_that_failed_is_not_repeated_at_once(
    compressed: App, monkeypatch: pytest.MonkeyPatch, sql: psycopg.Connection
) -> None:
    tried = []

    def failing(*_: object) -> None:
        tried.append(None)
        raise OperationalError("", None, Exception("the server went away"))

    monkeypatch.setattr(filter_snapshot, "held_vectors", failing)
    for _ in range(2):
        assert isinstance(asked_often(compressed).selector.copied, SelectedRows)
    assert len(tried) == 1
    assert skus(ask(compressed)) == expected(compressed, sql, "colour = 'red'")
    monkeypatch.setattr(filter_cache, "RETRY_PAUSE_S", -1.0)
    cached_in(compressed).vectors_not_before = 0.0
    for _ in range(2):
        ask(compressed)
    assert len(tried) == 3, "after a pause it is"


def test_vectors_that_take_most_of_the_memory_are_not_read(
    compressed: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compressed.search._fast_path is not None
    monkeypatch.setattr(filter_cache.selected_vectors, "bytes_needed", lambda *_: 40 << 20)
    assert isinstance(asked_often(compressed).selector.copied, SelectedRows)


def test_only_what_the_build_holds_is_read_and_only_from_the_server_of_the_list(
    compressed: App, sql: psycopg.Connection
) -> None:
    assert compressed.search._fast_path is not None
    last = compressed.search._fast_path.last_build
    assert last is not None
    model, build = last
    clause = nearest.filter_clause(RED)
    sql.execute("UPDATE embedding SET vec = vec WHERE picture_id = (SELECT min(id) FROM picture)")
    with snapshot(compressed.engine) as connection:
        listed = filter_snapshot.read(connection, clause)
        assert listed is not None
        ids = listed.ids
        held = filter_snapshot.held_vectors(connection, build, listed, ids, model.dim)
        other = replace(listed, stamps="another server")
        assert filter_snapshot.held_vectors(connection, build, other, ids, model.dim) is None
    assert held is not None
    [(found, rows)] = held
    assert set(ids.tolist()) - set(found.tolist()) == {min(ids)}
    stored = sql.execute("SELECT vec::text FROM embedding WHERE picture_id = %s", [int(found[0])])
    [text] = stored.fetchone() or ()
    assert np.allclose(rows[0], [float(x) for x in text.strip("[]").split(",")], atol=1e-6)


def test_vectors_are_compared_by_their_similarity_and_excluded_ids_left_out() -> None:
    rows, ids = unit(3000), np.arange(7, 3007, dtype=np.int64)
    index = AnnIndex(inverted_lists(rows[:20].copy(), CODES[0]).faiss_index, "rabitq")
    add_rows(index, ids, rows)
    selector = IdSelector(ids[::2])
    blocks = [(part, rows[part - 7].astype(np.float16)) for part in np.array_split(ids[::2], 3)]
    selector.copied = SelectedVectors(index.faiss_index, blocks)
    assert index.has_vectors(selector) and not index.has_vectors(None)
    [query] = unit(1, seed=9)
    similarities = rows[::2] @ query
    order = np.argsort(-similarities)
    nominees = index.nominate(query, 28, 12, selector=selector)
    assert set(ids[::2][order[:12]]) <= set(nominees.ids.tolist()) and len(nominees.ids) == 28
    assert nominees.known == 16 and nominees.cutoff is not None
    found = dict(zip(ids[::2].tolist(), similarities.tolist(), strict=True))
    scores, nominated = index.search(query[np.newaxis], 28, selector=selector)
    assert np.allclose(scores[0], [found[id_] for id_ in nominated[0].tolist()], atol=5e-3)
    excluded = ExcludedIds(ids[::2][order[:6]])
    without = index.nominate(query, 28, 12, selector=selector, excluded=excluded)
    assert not set(excluded.ids.tolist()) & set(without.ids.tolist())
    assert set(ids[::2][order[6:18]]) <= set(without.ids.tolist())
    every = index.nominate(query, 2000, selector=selector)
    assert len(every.ids) == 1500 and every.cutoff is None
    other = AnnIndex(inverted_lists(rows[:20].copy(), CODES[0]).faiss_index, "rabitq")
    assert not other.has_vectors(selector), "they are of one index"
