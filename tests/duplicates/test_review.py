"""The review queue: which pairs it returns, in which order, and which are settled."""

from __future__ import annotations

import threading

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.db.queries.review_pairs import MAX_SHARED_BY
from app.duplicates import review as duplicate_review
from app.duplicates.review import (
    DEFAULT_MAX_DISTANCE,
    ReviewCursor,
    ReviewPair,
    count_products,
    latest_decisions,
    load_pair,
    next_pair,
    progress,
)
from app.duplicates.verdicts import AlreadyDecided, Contradiction, decide
from app.errors import NoModel, UnknownProduct
from app.types import Product
from support.shop import add, add_products

TYPO = 0.9


def all_pairs(app: App, cursor: ReviewCursor | None = None) -> list[ReviewPair]:
    """All pairs of a scan in which every pair is skipped."""
    found: list[ReviewPair] = []
    cursor = cursor or ReviewCursor()
    while not cursor.finished:
        pair, cursor = next_pair(app.engine, cursor, TYPO)
        found += [pair] if pair else []
    return found


def pairs(app: App) -> list[str]:
    """The skus of these pairs, such as `AB`, in order."""
    return ["".join(pair.skus) for pair in all_pairs(app)]


def move(sql: psycopg.Connection, sku: str, near: str, distance: float) -> None:
    """Move the picture of a product to this cosine distance from that of another product."""
    one, other = (
        np.array(
            sql.execute(
                """SELECT e.vec::vector::real[] FROM embedding AS e
                JOIN product_picture USING (picture_id) JOIN product AS p ON p.id = product_id
                WHERE p.sku = %s""",
                [name],
            ).fetchone()[0]  # type: ignore[index]
        )
        for name in (sku, near)
    )
    aside = one - (one @ other) * other
    turned = (1 - distance) * other + np.sqrt(1 - (1 - distance) ** 2) * aside / np.linalg.norm(
        aside
    )
    sql.execute(
        """UPDATE embedding AS e SET vec = %s::vector::halfvec
        FROM product_picture AS pp JOIN product AS p ON p.id = pp.product_id
        WHERE pp.picture_id = e.picture_id AND p.sku = %s""",
        [str(turned.tolist()), sku],
    )


def say(app: App, pair: str, same: bool) -> None:
    decide(app.engine, pair[0], pair[1], same, "Ada")


def test_products_that_share_a_picture_are_reviewed(app: App) -> None:
    add(app, {"A": [1], "B": [2, 1], "C": [3]})
    (pair,) = all_pairs(app)
    assert (pair.skus, pair.shares_picture, pair.rule) == (("A", "B"), True, None)
    assert pair.distance == pytest.approx(0, abs=1e-6)


def test_products_with_the_same_words_are_reviewed_with_the_rule(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, {"A": [1], "B": [2], "C": [3]}, brand="Kestrel")
    sql.execute("UPDATE product SET title = 'lamp', year = 2020 + id, identity_key = '1|x'"
                " WHERE sku <> 'C'")  # fmt: skip
    (pair,) = all_pairs(app)
    assert (pair.skus, pair.rule, pair.shares_picture) == (
        ("A", "B"), "another year", False,
    )  # fmt: skip


def test_products_with_near_pictures_are_reviewed_nearest_first(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, {name: [seed] for seed, name in enumerate("ABCDEF")})
    move(sql, "B", "A", 0.09)
    move(sql, "D", "C", 0.03)
    move(sql, "F", "E", DEFAULT_MAX_DISTANCE + 0.02)
    found = all_pairs(app)
    assert ["".join(pair.skus) for pair in found] == ["CD", "AB"]
    assert [pair.distance for pair in found] == [
        pytest.approx(0.03, abs=0.005), pytest.approx(0.09, abs=0.005),
    ]  # fmt: skip


def test_a_pair_that_only_looks_alike_waits_for_those_whose_words_agree_too(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = ("silk shirt", "oak chair", "wool coat long", "wool coat long warm")
    shown = [(Product(sku, title=title), [seed])
             for seed, (sku, title) in enumerate(zip("ABCD", titles, strict=True))]  # fmt: skip
    add_products(app, shown)
    move(sql, "B", "A", 0.02)
    move(sql, "D", "C", 0.08)
    monkeypatch.setattr(duplicate_review, "PRODUCTS_PER_BATCH", 1)
    for seconds in ("BETTER_S", "MAX_SCAN_S"):
        monkeypatch.setattr(duplicate_review, seconds, float("inf"))
    pair, cursor = next_pair(app.engine, ReviewCursor(), TYPO)
    assert pair is not None and pair.skus == ("C", "D")
    state = progress(app.engine, cursor, count_products(app.engine))
    assert (state.products, state.waiting, state.waiting_weak, state.decided) == (4, 0, 1, 0)
    assert 0 < state.scanned < 4
    pair, cursor = next_pair(app.engine, cursor, TYPO)
    assert pair is not None and pair.skus == ("A", "B")
    monkeypatch.setattr(duplicate_review, "BETTER_S", -1.0)
    assert pairs(app) == ["AB", "CD"]


def test_the_calibration_limits_the_distance(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1], "B": [2]}, category="lamp")
    add(app, {"C": [3], "D": [4]}, category="chair")
    move(sql, "B", "A", 0.05)
    move(sql, "D", "C", 0.3)
    sql.execute(
        """INSERT INTO calibration (model_id, category, same_product_distance)
        SELECT id, category, far
        FROM model, (VALUES ('', 0.02), ('chair', 0.4)) AS cut (category, far)"""
    )
    (pair,) = all_pairs(app)
    assert ("".join(pair.skus), pair.means) == ("CD", "same product")


def test_a_picture_shared_by_many_products_is_not_evidence(app: App) -> None:
    add(app, {f"P{n}": [1] for n in range(MAX_SHARED_BY + 1)})
    assert all_pairs(app) == []


def test_the_nearest_pictures_stand_first_on_both_sides(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1, 2, 3], "B": [4, 5, 2]})
    (pair,) = all_pairs(app)
    first = [side.pictures[0].picture_id for side in pair.sides]
    assert first[0] == first[1]
    assert [len(side.pictures) for side in pair.sides] == [3, 3]


def test_a_product_without_a_picture_can_be_reviewed(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1], "B": []})
    sql.execute("UPDATE product SET title = 'lamp', identity_key = '1|x'")
    (pair,) = all_pairs(app)
    assert (pair.distance, pair.means, pair.sides[1].pictures) == (None, None, ())


def test_no_pair_is_returned_twice_in_one_scan(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicate_review, "PRODUCTS_PER_BATCH", 1)
    monkeypatch.setattr(duplicate_review, "GROUPS_PER_BATCH", 1)
    add(app, {"A": [1], "B": [1, 2], "C": [2], "D": [3]})
    assert sorted(pairs(app)) == ["AB", "BC"]


@pytest.mark.parametrize("same", [True, False])
def test_decided_pairs_are_not_returned(app: App, same: bool) -> None:
    add(app, {"A": [1], "B": [1]})
    say(app, "AB", same)
    assert all_pairs(app) == []


@pytest.mark.parametrize(("verdicts", "left"), [
    ({"AB": True, "BC": True}, []),
    ({"AB": True, "BC": False}, []),
    ({"AB": False, "BC": False}, ["AC"]),
    ({"AB": True}, ["AC", "BC"]),
])  # fmt: skip
def test_pairs_settled_by_other_verdicts_are_not_returned(
    app: App, verdicts: dict[str, bool], left: list[str]
) -> None:
    add(app, {"A": [1], "B": [1], "C": [1]})
    for pair, same in verdicts.items():
        say(app, pair, same)
    assert sorted(pairs(app)) == left


def test_pairs_settled_through_a_deleted_product_are_not_returned(app: App) -> None:
    add(app, {"A": [1], "B": [2], "C": [1]})
    say(app, "AB", True)
    say(app, "BC", False)
    app.catalog.delete(["B"])
    assert all_pairs(app) == []


def test_a_verdict_recorded_meanwhile_settles_waiting_pairs(app: App) -> None:
    add(app, {"A": [1], "B": [1], "C": [1]})
    pair, cursor = next_pair(app.engine, ReviewCursor(), TYPO)
    assert pair is not None and len(cursor.waiting) == 2
    say(app, "AB", True)
    say(app, "BC", True)
    assert all_pairs(app, cursor) == []


def test_a_product_deleted_meanwhile_is_skipped(app: App) -> None:
    add(app, {"A": [1], "B": [1], "C": [2], "D": [2]})
    _, cursor = next_pair(app.engine, ReviewCursor(), TYPO)
    app.catalog.delete(["D"])
    assert all_pairs(app, cursor) == []


def test_a_long_scan_without_a_pair_returns_its_progress(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicate_review, "MAX_SCAN_S", -1.0)
    monkeypatch.setattr(duplicate_review, "PRODUCTS_PER_BATCH", 2)
    add(app, {f"P{n}": [n] for n in range(5)})
    pair, cursor = next_pair(app.engine, ReviewCursor(), TYPO)
    assert (pair, cursor.scanned, cursor.finished) == (None, 2, False)
    while not cursor.finished:
        pair, cursor = next_pair(app.engine, cursor, TYPO)
    assert (pair, cursor.scanned) == (None, 5)


def test_an_empty_catalogue_has_no_pairs(app: App) -> None:
    pair, cursor = next_pair(app.engine, ReviewCursor(), TYPO)
    assert (pair, cursor.finished) == (None, True)


def test_a_database_without_a_model_is_an_error(app: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE model SET active = false")
    with pytest.raises(NoModel):
        next_pair(app.engine, ReviewCursor(), TYPO)


def test_a_decided_pair_can_be_loaded_with_its_verdict(app: App) -> None:
    add(app, {"A": [1], "B": [2]})
    say(app, "AB", False)
    pair = load_pair(app.engine, ("A", "B"), TYPO)
    assert pair.verdict is not None
    assert (pair.verdict.same, pair.verdict.decided_by) == (False, "Ada")


def test_a_pair_that_is_gone_cannot_be_loaded(app: App) -> None:
    add(app, {"A": [1], "B": [2]})
    say(app, "AB", False)
    app.catalog.delete(["B"])
    with pytest.raises(UnknownProduct, match="A or B"):
        load_pair(app.engine, ("A", "B"), TYPO)
    (decided,) = latest_decisions(app.engine, 10)
    assert decided.titles == ("title A", None)


def test_verdicts_are_listed_newest_first_page_by_page(app: App) -> None:
    add(app, {name: [seed] for seed, name in enumerate("ABCD")})
    for pair in ("AB", "AC", "AD"):
        say(app, pair, False)
    listed = [each.verdict.sku_b for each in latest_decisions(app.engine, 2)]
    assert (listed, latest_decisions(app.engine, 2, 2)[0].verdict.sku_b) == (["D", "C"], "B")


def test_of_two_concurrent_verdicts_on_one_pair_the_second_is_refused(app: App) -> None:
    add(app, {"A": [1], "B": [1]})
    said: list[str] = []

    def judge(name: str, same: bool) -> None:
        try:
            decide(app.engine, "A", "B", same, name, first=True)
        except AlreadyDecided as exc:
            said.append(str(exc))

    threads = [threading.Thread(target=judge, args=each) for each in (("Ada", True), ("Bo", False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (kept,) = latest_decisions(app.engine, 10)
    assert len(said) == 1 and kept.verdict.decided_by in said[0]


def test_a_first_verdict_may_still_contradict_others(app: App) -> None:
    add(app, {"A": [1], "B": [1], "C": [1]})
    say(app, "AB", True)
    say(app, "BC", True)
    with pytest.raises(Contradiction):
        decide(app.engine, "A", "C", False, "Bo", first=True)
