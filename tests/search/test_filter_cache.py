"""FilterCache: repeated filters are answered from cached ids, and changes never make them wrong."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Connection, event

from app.bootstrap import App
from app.db.engine import snapshot
from app.db.queries import filter_snapshot, nearest, single_statement
from app.db.queries.filter_snapshot import FilterIdList
from app.db.queries.nearest import FilterClause
from app.index import faiss_index
from app.index.faiss_index import CODES, AnnIndex, inverted_lists
from app.index.faiss_index import add as add_rows
from app.index.id_selectors import IdSelector
from app.index.selected_rows import SelectedRows
from app.search import fast_path, filter_cache
from app.search.adaptive_fetch import RETRIAL_SEARCHES
from app.search.filter_cache import CachedFilter, FilterCache
from app.search.filters import parse
from app.search.retrieval import IndexFetch, deep_round
from app.types import Query, SearchResult
from support.colours import photo
from support.copies import copied_for
from support.recall_queries import few_queries
from support.shop import add, numbered, oracle, vectors

RED = parse(["colour=red"])
FEW = 12


def fill(app: App) -> None:
    """200 products, twenty of them red."""
    add(app, numbered(20), colour="red")
    add(app, numbered(180, first=20), colour="blue")
    app.indexer.rebuild()


database_url = copied_for("shop", fill)


@pytest.fixture
def shop(app: App, monkeypatch: pytest.MonkeyPatch) -> App:
    """These products, whose ids are cached and read again whenever needed."""
    monkeypatch.setattr("app.search.filter_cache.MIN_USE_S", 0.0)
    monkeypatch.setattr("app.search.filter_cache.WAIT_S", 60.0)
    for _ in range(3):
        ask(app)
    return app


@pytest.fixture
def in_turn(shop: App) -> Iterator[list[str]]:
    """The statements of searches that the planner answered."""
    seen: list[str] = []
    event.listen(shop.search_engine, "before_cursor_execute", lambda *all_: seen.append(all_[2]))
    yield seen


def ask(app: App, seed: int = 1000, k: int = FEW, words: str = "colour=red") -> SearchResult:
    return app.search.search(Query(picture=photo(seed), k=k, filters=parse([words])))


def skus(result: SearchResult) -> list[str]:
    return [match.product.sku for match in result.matches]


def expected(app: App, sql: psycopg.Connection, where: str, k: int = FEW) -> list[str]:
    """The expected skus, computed by numpy; each product here has one picture of its own."""
    rows = sql.execute(
        "SELECT p.sku, e.picture_id, e.vec::text FROM product AS p"
        " JOIN product_picture AS pp ON pp.product_id = p.id"
        f" JOIN embedding AS e USING (picture_id) WHERE {where}"
    ).fetchall()
    named = {row[1]: row[0] for row in rows}
    table = {row[1]: np.array([float(x) for x in row[2].strip("[]").split(",")]) for row in rows}
    found = oracle(table, vectors(app, [1000])[0], k) if table else []
    return [named[id_] for id_, _ in found]


def test_a_repeated_filter_is_answered_in_one_statement(
    shop: App, in_turn: list[str], sql: psycopg.Connection
) -> None:
    result = ask(shop)
    assert in_turn == []
    assert skus(result) == expected(shop, sql, "colour = 'red'")
    assert result.plan.path == "faiss-filtered" and "among what passes" in result.plan.reason
    assert result.plan.vanished == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE product SET colour = 'red' WHERE sku > 'P0150'",
        "UPDATE product SET colour = 'blue' WHERE sku < 'P0008'",
        "DELETE FROM product WHERE sku < 'P0008'",
        "INSERT INTO product (sku, colour) VALUES ('NEW', 'red');"
        " UPDATE product_picture SET product_id = (SELECT id FROM product WHERE sku = 'NEW')"
        " WHERE product_id IN (SELECT id FROM product WHERE sku = 'P0100')",
        "UPDATE product_picture SET product_id = (SELECT id FROM product WHERE sku = 'P0003')"
        " WHERE product_id IN (SELECT id FROM product WHERE sku > 'P0100')",
        "DELETE FROM product_picture",
    ],
)
def test_products_that_start_or_stop_passing_are_seen_immediately(
    shop: App, in_turn: list[str], sql: psycopg.Connection, change: str
) -> None:
    sql.execute(change)
    found = {k: ask(shop, k=k).matches for k in (1, FEW, 200)}
    # Where nothing passes, further statements find out why.
    assert (in_turn == []) == bool(found[200])
    for k, matches in found.items():
        assert [(match.product_id, match.similarity) for match in matches] == truth(shop, k)


def test_a_picture_shared_with_a_later_product_that_passes(
    shop: App, sql: psycopg.Connection
) -> None:
    """The blue product's picture, shown by a red one written later, is a hit of the red one."""
    add(shop, {"TWIN": [77]}, colour="red")
    result = ask(shop, seed=77, k=1)
    assert skus(result) == ["TWIN"] and result.matches[0].similarity == pytest.approx(1, abs=1e-3)


def test_a_change_open_while_the_ids_were_read_is_found_once_it_commits(
    shop: App, in_turn: list[str], database_url: str, sql: psycopg.Connection
) -> None:
    with psycopg.connect(database_url) as writer:
        writer.execute("UPDATE product SET colour = 'green' WHERE sku IN ('P0100', 'P0101')")
        writer.execute(
            "UPDATE product_picture SET product_id = (SELECT id FROM product WHERE sku = 'P0001')"
            " WHERE product_id IN (SELECT id FROM product WHERE sku = 'P0102')"
        )
        sql.execute("UPDATE product SET colour = 'green' WHERE sku = 'P0001'")
        sql.execute("INSERT INTO product (sku) VALUES ('a later transaction')")
        for _ in range(3):
            assert skus(ask(shop, words="colour=green")) == ["P0001"]
    in_turn.clear()
    result = ask(shop, words="colour=green")
    assert set(skus(result)) == {"P0001", "P0100", "P0101"}
    [moved] = vectors(shop, [102])
    found = shop.search.search(
        Query(vector=moved, model_id=1, k=1, filters=parse(["colour=green"]))
    )
    assert found.matches[0].similarity == pytest.approx(1, abs=1e-3)
    assert in_turn == []


@pytest.mark.parametrize("began", ["before the snapshot", "after it"])
def test_ids_newer_than_the_snapshot_are_not_used(
    shop: App, database_url: str, sql: psycopg.Connection, began: str
) -> None:
    """They lack products that stopped passing in between, which the snapshot still sees."""
    change = "UPDATE product SET colour = 'blue' WHERE sku = 'P0003'"
    with psycopg.connect(database_url) as writer, shop.fast_engine.connect() as held:
        if began == "before the snapshot":
            writer.execute(change)
        sql.execute("INSERT INTO product (sku) VALUES ('a later transaction')")
        held.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        held.exec_driver_sql("SELECT 1")
        if began == "after it":
            writer.execute(change)
        writer.commit()
        assert _once(shop, held, _read(shop)) is None
        held.exec_driver_sql("ROLLBACK")
        held.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        assert _once(shop, held, _read(shop)) is not None


def _read(app: App) -> FilterIdList:
    with app.engine.connect() as connection:
        found = filter_snapshot.read(connection, nearest.filter_clause(RED))
    assert found is not None
    return found


def _once(app: App, held: object, listed: FilterIdList) -> single_statement.StatementResult | None:
    model, build = app.search._fast_path.last_build  # type: ignore[union-attr, misc]
    vector = vectors(app, [1000])[0].astype(np.float16).astype(np.float32)
    index = app.files.opened(build)
    assert index is not None
    raw = held.connection.driver_connection  # type: ignore[attr-defined]
    look = single_statement.StatementRequest(
        model, build, vector, 30, FEW, nearest.filter_clause(RED), listed
    )
    nominees = index.nominate(
        vector / np.linalg.norm(vector), 30, 30, selector=IdSelector(listed.ids)
    )
    try:
        return single_statement.search(
            raw,
            look,
            nominees.ids,
            nominees.seen_to,
            cluster=single_statement.cluster(raw),
            max_delta_rows=20_000,
            known=nominees.known,
        )
    except single_statement.FilterListOutdated:
        return None


@pytest.mark.parametrize("table", ["product", "product_picture"])
def test_cached_ids_are_dropped_once_rows_may_have_changed_unstamped(
    shop: App, in_turn: list[str], sql: psycopg.Connection, table: str
) -> None:
    sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_stamp")
    sql.execute("UPDATE product SET colour = 'red' WHERE sku > 'P0150'")
    sql.execute(
        "UPDATE product_picture SET product_id = (SELECT id FROM product WHERE sku = 'P0001')"
        " WHERE product_id IN (SELECT id FROM product WHERE sku = 'P0102')"
    )
    assert skus(ask(shop, k=200)) == list(dict.fromkeys(expected(shop, sql, "colour = 'red'", 200)))
    sql.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_stamp")
    for _ in range(3):
        in_turn.clear()
        found = skus(ask(shop, k=200))
        assert found == list(dict.fromkeys(expected(shop, sql, "colour = 'red'", 200)))
    assert in_turn == []


def test_ids_are_read_again_when_much_has_changed(
    shop: App, in_turn: list[str], sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql.execute(
        "INSERT INTO product (sku, colour) SELECT 'X' || n, 'red' FROM generate_series(1, 301) n"
    )
    assert skus(ask(shop)) == expected(shop, sql, "colour = 'red'")
    assert in_turn != []
    ask(shop)
    in_turn.clear()
    assert skus(ask(shop)) == expected(shop, sql, "colour = 'red'")
    assert in_turn == []


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


@pytest.mark.parametrize("kind", ["flat", "rabitq"])
def test_results_are_right_for_any_order_of_changes_and_open_transactions(
    shop: App,
    database_url: str,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Writers keep transactions open while ids are read, and commit or roll back in any order.

    The rows of an index in inverted lists are copied, and it is replaced now and then.
    """
    dice, fresh = random.Random(7), iter(range(10_000))
    copied: list[object] = []
    if kind != "flat":
        few_queries(monkeypatch)
        monkeypatch.setattr(faiss_index, "FLAT_ROWS", 20)
        monkeypatch.setattr(fast_path, "_is_faster", lambda *_: False)
        monkeypatch.setattr(filter_cache, "SelectedRows", lambda *of: _noted(copied, *of))
        assert shop.indexer.rebuild().kind == kind
    assert shop.search._fast_path is not None
    with ExitStack() as stack:
        writers = [stack.enter_context(psycopg.connect(database_url)) for _ in range(4)]
        for round_ in range(80):
            number = dice.randrange(len(writers))
            first = number * 50  # each writes rows of its own: nobody waits
            skus_ = [f"P{dice.randrange(first, first + 50):04}" for _ in range(3)]
            match dice.randrange(6):
                case 0:
                    writers[number].commit()
                case 1:
                    writers[number].rollback()
                case 2:
                    writers[number].execute(
                        "UPDATE product SET colour = 'red' WHERE sku = ANY(%s)", [skus_]
                    )
                case 3:
                    writers[number].execute(
                        "UPDATE product SET colour = 'blue' WHERE sku = ANY(%s)", [skus_]
                    )
                case 4:
                    writers[number].execute(
                        "WITH new AS (INSERT INTO product (sku, colour) VALUES (%s, 'red')"
                        " RETURNING id) INSERT INTO product_picture"
                        " SELECT new.id, pp.picture_id, 0, '' FROM new, product_picture AS pp"
                        " JOIN product AS p ON p.id = pp.product_id WHERE p.sku = %s",
                        [f"N{next(fresh)}", skus_[0]],
                    )
                case 5:
                    writers[number].execute(
                        "DELETE FROM product_picture WHERE product_id IN"
                        " (SELECT id FROM product WHERE sku = ANY(%s))", [skus_[:1]],
                    )  # fmt: skip
            if dice.randrange(8) == 0:
                shop.search._fast_path._filters.forget(nearest.filter_clause(RED))
            if copied and round_ % 30 == 29:
                add(shop, numbered(5, first=1000 + round_), colour="red")
                shop.indexer.rebuild()
            k = dice.choice([1, 5, 60])
            got = [(m.product_id, m.similarity) for m in ask(shop, k=k).matches]
            assert got == truth(shop, k), round_
    assert (len(set(copied)) > 1) == (kind != "flat")


def _noted(indexes: list[object], index: object, selector: IdSelector) -> SelectedRows:
    indexes.append(index)
    return SelectedRows(index, selector)


def truth(app: App, k: int) -> list[tuple[int, float]]:
    """Ids and similarities from the exact comparison of all that passes."""
    vector = vectors(app, [1000])[0].astype(np.float16).astype(np.float32)
    with snapshot(app.engine) as connection:
        found = nearest.exact_filtered(
            connection, app.catalog.model(), vector, nearest.filter_clause(RED), k=k, excluded=()
        )
    assert found is not None
    return [(hit.product_id, hit.similarity) for hit in found.hits]


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


STAMPS = f"SELECT {filter_snapshot.STAMP_VERSIONS}"


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE product DROP COLUMN year CASCADE, ADD COLUMN year integer DEFAULT 2020",
        "ALTER TABLE product RENAME brand TO kind; ALTER TABLE product RENAME colour TO brand",
        "CREATE OR REPLACE FUNCTION stamp_row() RETURNS trigger LANGUAGE plpgsql"
        " SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NEW; END'",
        "ALTER TABLE product DISABLE TRIGGER ALL; ALTER TABLE product ENABLE TRIGGER ALL;"
        " ALTER TABLE product ENABLE ALWAYS TRIGGER product_stamp",
        "VACUUM FULL product_picture",
        "TRUNCATE product CASCADE",
    ],
)
def test_operations_that_bypass_the_stamp_change_the_fingerprint(
    shop: App, sql: psycopg.Connection, change: str
) -> None:
    before = sql.execute(STAMPS).fetchone()
    assert sql.execute(STAMPS).fetchone() == before != (None,)
    sql.execute("ANALYZE")
    assert sql.execute(STAMPS).fetchone() == before
    for statement in change.split(";") if "AS 'BEGIN" not in change else [change]:
        sql.execute(statement)
    assert sql.execute(STAMPS).fetchone() != before


def test_a_copy_of_the_database_has_another_fingerprint(
    database_url: str, new_database: Callable[[str | None], str]
) -> None:
    """Same rows, files and numbers, but later writes of one are not in the other."""
    name = database_url.split("?")[0].rsplit("/", 1)[1]
    with psycopg.connect(database_url) as one:
        before = one.execute(STAMPS).fetchone()
    with psycopg.connect(new_database(name)) as other:
        assert other.execute(STAMPS).fetchone() != before


def test_many_pictures_of_few_changed_products_are_read_again_once(
    shop: App, in_turn: list[str], sql: psycopg.Connection
) -> None:
    add(shop, {"ALBUM": range(2000, 2400)}, colour="red")
    shop.indexer.rebuild()
    for _ in range(3):
        ask(shop)
    sql.execute("UPDATE product SET price = 5 WHERE sku = 'ALBUM'")
    in_turn.clear()
    assert "ALBUM" in skus(ask(shop))
    assert in_turn != []


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


def test_ids_outdated_too_soon_are_not_read_again_immediately(
    shop: App, in_turn: list[str], sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows whose stamps lie in the future, as a dump restored without migrating has them."""
    sql.execute("ALTER TABLE product DISABLE TRIGGER product_stamp")
    sql.execute("INSERT INTO product (sku, colour, changed_in)"
                " SELECT 'X' || n, 'red', '99999999' FROM generate_series(1, 301) n")  # fmt: skip
    sql.execute("ALTER TABLE product ENABLE ALWAYS TRIGGER product_stamp")
    monkeypatch.setattr("app.search.filter_cache.MIN_USE_S", 5.0)
    for _ in range(6):
        found = skus(ask(shop, words="colour=blue"))
        assert found == expected(shop, sql, "colour = 'blue'")
    assert sum("AS standby" in statement for statement in in_turn) == 1


def test_long_filters_take_no_more_memory_than_short_ones(shop: App) -> None:
    lists = FilterCache(shop.engine)
    for n in range(20):
        lists.get(nearest.filter_clause(parse([f"sku=S{n}-{each}" for each in range(500)])))
    assert sum(len(key) for key in lists._entries) < 20 * 100
