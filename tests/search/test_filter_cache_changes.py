"""Changes never make a search with cached filter ids wrong, whoever writes, in any order."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.db.engine import snapshot
from app.db.queries import filter_snapshot, nearest, single_statement
from app.db.queries.filter_snapshot import FilterIdList
from app.index import faiss_index
from app.index.id_selectors import IdSelector
from app.index.selected_rows import SelectedRows
from app.index.selected_vectors import SelectedVectors
from app.search import fast_path, filter_cache
from app.search.filter_cache import FilterCache
from app.search.filters import parse
from app.types import Query
from support.copies import copied_for
from support.filtered_shop import FEW, RED, ask, expected, fill, read_vectors_at_once, skus
from support.recall_queries import few_queries
from support.shop import add, numbered, vectors

database_url = copied_for("shop", fill)


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


@pytest.mark.parametrize("kind", ["flat", "rabitq", "vectors"])
def test_results_are_right_for_any_order_of_changes_and_open_transactions(
    shop: App,
    database_url: str,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Writers keep transactions open while ids are read, and commit or roll back in any order.

    The rows of an index in inverted lists are copied, or their vectors read, and it is replaced now
    and then.
    """
    dice, fresh = random.Random(7), iter(range(10_000))
    copied: list[object] = []
    if kind != "flat":
        few_queries(monkeypatch)
        monkeypatch.setattr(faiss_index, "FLAT_ROWS", 20)
        monkeypatch.setattr(fast_path, "_is_faster", lambda *_: False)
        if kind == "rabitq":
            monkeypatch.setattr(FilterCache, "_begin_vectors", lambda *_: None)
            monkeypatch.setattr(filter_cache, "SelectedRows", lambda *of: _noted(copied, *of))
        else:
            read_vectors_at_once(monkeypatch)

            class Noted(SelectedVectors):
                def __init__(self, index: Any, blocks: Any) -> None:
                    super().__init__(index, blocks)
                    copied.append(index)

            monkeypatch.setattr(filter_cache, "SelectedVectors", Noted)
        assert shop.indexer.rebuild().kind == "rabitq"
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
