"""`lookalike check`: stamps of changes, identity keys, and verdicts."""

from __future__ import annotations

import psycopg
import pytest

from app.bootstrap import App
from app.duplicates.verdicts import decide
from app.operations.integrity.words import contradictions
from app.types import Query, Verdict
from support.colours import photo
from support.integrity_checks import (
    REPAIR,
    only_finding,
    repaired,
    run_check,
)

# Stamps


@pytest.mark.parametrize("table", ["embedding", "product", "product_picture"])
@pytest.mark.parametrize("damage", ["DISABLE", "ENABLE", "ENABLE REPLICA"])
def test_a_stamp_trigger_that_is_not_always_on_is_enabled(
    shop: App, sql: psycopg.Connection, table: str, damage: str
) -> None:
    sql.execute(f"ALTER TABLE {table} {damage} TRIGGER {table}_stamp")  # type: ignore[arg-type]
    assert table in repaired(shop, "stamp-off").examples


def test_a_stamp_trigger_disabled_on_one_partition_is_enabled(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("ALTER TABLE embedding_m1 DISABLE TRIGGER embedding_stamp")
    assert repaired(shop, "stamp-off").examples == ("embedding_m1",)


@pytest.mark.parametrize("table", ["embedding", "product"])
def test_a_missing_stamp_trigger_is_created(shop: App, sql: psycopg.Connection, table: str) -> None:
    sql.execute(f"DROP TRIGGER {table}_stamp ON {table}")  # type: ignore[arg-type]
    repaired(shop, "stamp-off")


def test_a_stamp_trigger_with_a_condition_is_replaced(shop: App, sql: psycopg.Connection) -> None:
    sql.execute("CREATE OR REPLACE TRIGGER product_stamp BEFORE INSERT OR UPDATE ON product"
                " FOR EACH ROW WHEN (NEW.sku > 'P') EXECUTE FUNCTION stamp_row()")  # fmt: skip
    sql.execute("ALTER TABLE product ENABLE ALWAYS TRIGGER product_stamp")
    repaired(shop, "stamp-off")


def test_a_stamp_trigger_overridden_by_another_cannot_be_repaired(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TRIGGER zz BEFORE UPDATE ON product FOR EACH ROW"
                " EXECUTE FUNCTION suppress_redundant_updates_trigger()")  # fmt: skip
    finding = only_finding(shop, "stamp-off", REPAIR)
    assert finding.wrong and finding.repaired is None


def test_no_build_that_missed_a_change_is_used_after_a_stamp_trigger_was_off(
    indexed: App, sql: psycopg.Connection
) -> None:
    sql.execute("ALTER TABLE embedding DISABLE TRIGGER embedding_stamp")
    sql.execute("UPDATE embedding AS e SET vec = o.vec FROM embedding AS o"
                " WHERE e.picture_id = 1 AND o.picture_id = 2")  # fmt: skip
    assert run_check(indexed, REPAIR).healthy
    plan = indexed.search.search(Query(picture=photo(1), k=3)).plan
    assert plan.build is None and plan.path != "faiss"


@pytest.mark.parametrize(
    ("table", "column"), [("embedding", "vec"), ("product", "sku"), ("product_picture", "uri")]
)
def test_a_row_stamped_in_the_future_is_restamped(
    shop: App, sql: psycopg.Connection, table: str, column: str
) -> None:
    stamp, off = f"{table}_stamp", f"ALTER TABLE {table} DISABLE TRIGGER"
    sql.execute(f"{off} {stamp}")  # type: ignore[arg-type]
    sql.execute(f"UPDATE {table} SET changed_in = '99999999'")  # type: ignore[arg-type]
    sql.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {stamp}")  # type: ignore[arg-type]
    finding = repaired(shop, "rows-from-the-future")
    assert finding.count == 6 and len(finding.examples) == 5


# Identity keys and verdicts


def test_an_identity_key_of_another_normaliser_is_renewed(
    shop: App, sql: psycopg.Connection
) -> None:
    old = sql.execute("SELECT identity_key FROM product WHERE sku = 'P0002'").fetchone()
    sql.execute("UPDATE product SET identity_key = '0|other' WHERE sku = 'P0002'")
    assert repaired(shop, "identity-keys").examples == ("P0002",)
    assert sql.execute("SELECT identity_key FROM product WHERE sku = 'P0002'").fetchone() == old


def test_an_identity_key_outdated_by_an_sql_update_is_renewed(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE product SET title = 'Green chair' WHERE sku = 'P0002'")
    repaired(shop, "identity-keys")


def test_contradicting_verdicts_are_named_and_not_repaired(
    shop: App, sql: psycopg.Connection
) -> None:
    decide(shop.engine, "P0000", "P0001", True, "Ada")
    decide(shop.engine, "P0001", "P0002", True, "Ada")
    sql.execute("INSERT INTO duplicate_verdict VALUES ('P0000', 'P0002', false, 'by hand')")
    finding = only_finding(shop, "verdicts-contradict", REPAIR)
    assert finding.examples == ("P0000 differs from P0002",) and finding.wrong


def test_verdicts_that_agree_do_not_contradict() -> None:
    same = [Verdict("A", "B", True), Verdict("B", "C", True)]
    assert list(contradictions([*same, Verdict("C", "D", False)])) == []
    assert len(list(contradictions([Verdict("A", "C", False), *same]))) == 1


def test_a_verdict_on_deleted_products_is_reported_and_kept(
    shop: App, sql: psycopg.Connection
) -> None:
    decide(shop.engine, "P0000", "P0001", False, "Ada")
    shop.catalog.delete(["P0001"])
    assert only_finding(shop, "verdicts-on-nothing", REPAIR).examples == ("P0001",)
    assert run_check(shop).healthy
    assert sql.execute("SELECT count(*) FROM duplicate_verdict").fetchone() == (1,)
