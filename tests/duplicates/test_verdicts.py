"""Verdicts on duplicates, and the identity keys in the table."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.db.locks import LockKey
from app.db.queries import verdicts
from app.duplicates.normalization import identity_key
from app.duplicates.report import compare, duplicate_groups, evaluate, read_pairs
from app.duplicates.verdicts import AlreadyDecided, Contradiction, decide
from app.errors import BadInput, BadSource, UnknownProduct
from app.operations.migrate import migrate
from app.types import Product
from support.shop import add, numbered


@pytest.fixture
def shop(app: App) -> App:
    """Products P0000 to P0004 whose words all differ."""
    add(app, numbered(5))
    return app


def skus(*numbers: int) -> list[str]:
    return [f"P{n:04}" for n in numbers]


def told(app: App, *numbers: int) -> list[tuple[str, str, bool]]:
    with app.engine.connect() as connection:
        found = verdicts.related(connection, skus(*numbers))
    return [(v.sku_a[-1], v.sku_b[-1], v.same) for v in found]


def say(app: App, a: int, b: int, same: bool, by: str = "Ada") -> None:
    decide(app.engine, *skus(a, b), same, by)


def test_a_verdict_is_written_with_who_and_when(shop: App, sql: psycopg.Connection) -> None:
    verdict = decide(shop.engine, "P0002", "P0001", True, " Ada ")
    assert (verdict.sku_a, verdict.sku_b, verdict.same) == ("P0001", "P0002", True)
    row = sql.execute("SELECT * FROM duplicate_verdict").fetchone()
    assert row == ("P0001", "P0002", True, "Ada", verdict.decided_at)


def test_pairs_are_ordered_by_code_points(app: App) -> None:
    add(app, {"a": [1], "B": [2], "\uff21": [3], "\U0001f455": [4]})
    assert decide(app.engine, "a", "B", True, "Ada").sku_a == "B"
    assert decide(app.engine, "\U0001f455", "\uff21", True, "Ada").sku_a == "\uff21"


def test_a_new_verdict_replaces_the_one_before(shop: App) -> None:
    say(shop, 1, 2, True)
    say(shop, 2, 1, False, "Grace")
    assert told(shop, 1) == [("1", "2", False)]


def test_related_verdicts_follow_same_and_stop_after_different(shop: App) -> None:
    say(shop, 0, 1, True)
    say(shop, 1, 2, True)
    say(shop, 2, 3, False)
    say(shop, 3, 4, True)
    expected = [("0", "1", True), ("1", "2", True), ("2", "3", False)]
    assert told(shop, 0) == told(shop, 1, 2) == expected
    assert told(shop, 4) == [("2", "3", False), ("3", "4", True)]
    assert told(shop) == []


def test_a_contradiction_is_refused_naming_the_chain(shop: App) -> None:
    say(shop, 0, 1, True)
    say(shop, 1, 2, True, "Grace")
    chain = r"P0000 .* the same as P0001 \(by Ada\); P0001 .* the same as P0002 \(by Grace\)"
    with pytest.raises(Contradiction, match=chain):
        say(shop, 0, 2, False)
    say(shop, 2, 3, False)
    with pytest.raises(Contradiction, match=r"P0002 differs from P0003 .*; P0001 .*; P0000 is"):
        say(shop, 3, 0, True)
    say(shop, 0, 2, True)
    say(shop, 0, 3, False)


def test_two_verdicts_at_once_do_not_contradict(shop: App, sql: psycopg.Connection) -> None:
    say(shop, 0, 1, True)
    refused: list[BadInput] = []

    def ask() -> None:
        try:
            say(shop, 0, 2, False)
        except Contradiction as exc:
            refused.append(exc)

    with sql.transaction():
        sql.execute("SELECT pg_advisory_xact_lock(%s)", [LockKey.VERDICTS.value])
        sql.execute("INSERT INTO duplicate_verdict VALUES ('P0001', 'P0002', true, 'Grace')")
        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(0.3)
        assert asking.is_alive()
    asking.join(300)
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("a", "b", "by", "error", "says"),
    [
        ("P0001", "P0001", "Ada", BadInput, "one product"),
        ("P0001", "P0\0", "Ada", BadInput, "NUL"),
        ("\udcff", "P0001", "Ada", BadInput, "is not text"),
        ("P0001", "P0002", "A\0", BadInput, "NUL"),
        ("P0001", "P0002", " ", BadInput, "who decides"),
        ("P0001", "NONE", "Ada", UnknownProduct, "has the sku NONE"),
    ],
)
def test_a_verdict_is_refused(
    shop: App, a: str, b: str, by: str, error: type[BadInput], says: str
) -> None:
    with pytest.raises(error, match=says):
        decide(shop.engine, a, b, True, by)
    assert told(shop, *range(5)) == []


def test_a_verdict_outlives_its_products(shop: App) -> None:
    say(shop, 0, 1, True)
    shop.catalog.delete(skus(0, 1))
    assert told(shop, 0) == [("0", "1", True)]
    assert duplicate_groups(shop.engine, 0.9) == []


def test_the_catalogue_folds_by_verdicts_and_is_measured_without(shop: App) -> None:
    say(shop, 0, 1, True)
    (group,) = duplicate_groups(shop.engine, 0.9)
    assert (group.keeper.sku, group.folded[0].rule) == ("P0000", "verdict")
    figures = evaluate(shop.engine, [("P0000", "P0001")], 0.9)
    assert (figures.folds, figures.recall, figures.precision) == (0, 0.0, None)
    assert figures.misses == (("P0000", "P0001"),)


def test_pairs_that_follow_from_known_pairs_are_known() -> None:
    figures = compare([], [("A", "B"), ("B", "C")])
    assert figures.known == 3 and figures.misses == (("A", "B"), ("A", "C"), ("B", "C"))


def test_pairs_of_unknown_products_are_refused(shop: App) -> None:
    with pytest.raises(UnknownProduct, match="2 skus no product has: X, Y"):
        evaluate(shop.engine, [("P0000", "X"), ("Y", "X")], 0.9)


@pytest.mark.parametrize(
    ("text", "says"),
    [("sku_a\nA\n", "columns"), ("sku_a,sku_b\n", "no pairs"), ("sku_a,sku_b\nA,A\n", "line 2"),
     ("sku_a,sku_b\nA\n", "line 2"), ("sku_a,sku_b\nA,\xff\n", "UTF-8"), (None, "cannot be read")],
)  # fmt: skip
def test_a_bad_list_of_pairs_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    source = tmp_path / "pairs.csv"
    if text is not None:
        source.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadSource, match=says):
        read_pairs(source)


# Identity keys in the table.


def keys(sql: psycopg.Connection) -> dict[str, str]:
    return dict(sql.execute("SELECT sku, identity_key FROM product").fetchall())  # type: ignore[arg-type]


def test_a_written_product_has_its_key_and_a_changed_one_a_new_key(
    app: App, sql: psycopg.Connection
) -> None:
    for brand in ("Kestrel", "Solano"):
        add(app, {"A": [1]}, brand=brand)
        expected = identity_key(Product("A", title="title A", brand=brand))
        assert expected and keys(sql) == {"A": expected}


def test_keys_of_another_version_are_renewed_and_nothing_else_is_touched(
    shop: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.migrate.BATCH", 2)
    expected = keys(sql)
    sql.execute("UPDATE product SET identity_key = CASE WHEN id % 2 = 0 THEN '' ELSE '0|x' END"
                " WHERE sku <> 'P0000'")  # fmt: skip
    sql.execute("INSERT INTO product (sku, title) VALUES ('X', '!')")
    rows = "SELECT sku, ctid, updated_at FROM product WHERE sku IN ('P0000', 'X')"
    times = "SELECT sku, updated_at FROM product ORDER BY sku"
    before = sql.execute(rows).fetchall(), sql.execute(times).fetchall()
    migrate(shop.engine)
    assert keys(sql) == expected | {"X": ""}
    assert (sql.execute(rows).fetchall(), sql.execute(times).fetchall()) == before


def test_equal_keys_are_found_in_sql(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1]}, year=2020)
    sql.execute("UPDATE product SET sku = 'B'")
    add(app, {"A": [1]}, year=2021)
    same = "SELECT count(DISTINCT identity_key), count(*) FROM product"
    assert sql.execute(same).fetchone() == (1, 2)
    ((fold,),) = [group.folded for group in duplicate_groups(app.engine, 0.9)]
    assert (fold.candidate.sku, fold.rule, fold.matched_by) == ("B", "another year", "A")


def test_a_verdict_recorded_meanwhile_is_not_replaced_unseen(
    app: App, sql: psycopg.Connection
) -> None:
    sql.execute("INSERT INTO product (sku) VALUES ('A'), ('B')")
    seen = decide(app.engine, "A", "B", True, "Ann")
    newer = decide(app.engine, "A", "B", False, "Bob")
    with pytest.raises(AlreadyDecided, match="Bob"):
        decide(app.engine, "A", "B", True, "Cid", seen=seen)
    assert decide(app.engine, "A", "B", True, "Cid", seen=newer).decided_by == "Cid"
