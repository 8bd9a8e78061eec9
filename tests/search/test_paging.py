"""Pages: no product twice or missing, and a reason for each dropped one."""

from __future__ import annotations

import psycopg
import pytest

from app.bootstrap import App
from app.index import faiss_index
from app.search import page_budget
from app.search.dedup import LIKE_MATCH, LIKE_QUERY
from app.search.page_budget import MIN_DEDUPLICATED
from app.types import Query
from support.copies import copied_for
from support.recall_queries import few_queries
from support.shop import add, numbered, vectors
from support.text_encoder import add_titled, ask, skus
from support.years_shop import fill_years

database_url = copied_for("years", fill_years)


def test_the_same_product_of_other_years_comes_once_with_the_rule(years: App) -> None:
    plain = ask(years, 500 + 2020, k=36)
    assert sum(sku.startswith("Y") for sku in skus(plain)) == 6
    result = ask(years, 500 + 2020, k=31, fold=True)
    assert len(result.matches) == 31
    [keeper] = [match for match in result.matches if match.product.sku.startswith("Y")]
    assert keeper.product.sku == "Y2020", "the most similar stays"
    assert {fold.product.sku for fold in keeper.folded} == {
        f"Y{year}" for year in (2018, 2019, 2021, 2022, 2023)
    }
    assert {fold.rule for fold in keeper.folded} == {"another year"}
    assert all(fold.like.startswith("Y") for fold in keeper.folded)


def test_folding_does_not_shorten_a_page_while_there_are_more(years: App) -> None:
    assert len(ask(years, 500 + 2020, k=12, fold=True).matches) == 12
    all_of_them = ask(years, 500 + 2020, k=40, fold=True)
    assert len(all_of_them.matches) == 31
    assert all_of_them.plan.shortfall is not None and "5 were folded" in all_of_them.plan.shortfall


def test_a_verdict_overrides_folding(years: App) -> None:
    from app.duplicates.verdicts import decide

    decide(years.engine, "Y2019", "Y2020", same=False, decided_by="Ada")
    decide(years.engine, "D00", "D01", same=True, decided_by="Ada")
    result = ask(years, 500 + 2020, k=40, fold=True)
    together = [{m.product.sku, *(f.product.sku for f in m.folded)} for m in result.matches]
    assert not any({"Y2019", "Y2020"} <= group for group in together)
    assert {"D00", "D01"} in together


@pytest.mark.parametrize("size", [1, 4, 7])
@pytest.mark.parametrize("how", [{}, {"fold": True}, {"fold": True, "near_match": 0.35}])
def test_consecutive_pages_equal_one_long_page(
    years: App, size: int, how: dict[str, object]
) -> None:
    add_titled(years, "TWIN", "hanako verra zovar", 7)  # the photo of D07
    whole = skus(ask(years, 2018 + 500, k=60, **how))
    came: list[str] = []
    shown: tuple[str, ...] = ()
    while True:
        result = ask(years, 2018 + 500, k=size, shown=shown, **how)
        shown += result.shown
        came += skus(result)
        if len(result.matches) < size:
            break
    assert came == whole
    assert len(set(came)) == len(came)


def test_later_pages_are_as_thorough_as_the_first(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An IVF index must probe more lists for the hundredth product than for the first."""
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 100)
    few_queries(monkeypatch)
    monkeypatch.setattr(faiss_index, "MIN_NPROBE", 1)
    add(app, numbered(1500))
    build = app.indexer.rebuild()
    assert build.kind != "flat" and build.state == "published"
    whole = skus(ask(app, 9000, k=1000))[:200]
    shown: tuple[str, ...] = ()
    came: list[str] = []
    for _ in range(20):
        result = ask(app, 9000, k=10, shown=shown)
        shown += result.shown
        came += skus(result)
    assert len(set(came) & set(whole)) > 0.98 * len(whole)


def test_products_of_many_pictures_are_looked_for_as_thoroughly(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty pictures each: the second fetch round must probe deeper, not only fetch more."""
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 100)
    few_queries(monkeypatch)
    monkeypatch.setattr(faiss_index, "MIN_NPROBE", 1)
    add(app, {f"M{n:02}": range(30 * n, 30 * n + 30) for n in range(60)})
    build = app.indexer.rebuild()
    assert build.kind != "flat" and build.state == "published"
    found = 0
    for seed in range(9000, 9010):
        [query] = vectors(app, [seed])
        true = sql.execute(
            "SELECT sku FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id"
            " JOIN embedding AS e USING (picture_id)"
            " GROUP BY sku ORDER BY min((e.vec <=> %s::vector) + 0), sku LIMIT 20",
            (str(query.tolist()),),
        ).fetchall()
        result = ask(app, seed, k=20)
        assert result.plan.path == "faiss" and len(result.matches) == 20
        found += len({sku for (sku,) in true} & set(skus(result)))
    assert found >= 0.98 * 200


def test_a_match_by_words_shows_a_picture_with_an_embedding(
    app: App, sql: psycopg.Connection
) -> None:
    """A picture whose embedding is still to come cannot be compared with the others."""
    add(app, {"A2": [1, 50], "B2": [2, 51], "C2": [3, 51]}, brand="Zarr")
    sql.execute(
        "DELETE FROM embedding WHERE picture_id IN (SELECT picture_id FROM product_picture"
        " JOIN product ON product.id = product_id WHERE position = 0 AND sku IN ('B2', 'C2'))"
    )
    how = {"words": "zarr", "words_by": "catalogue", "near_match": 0.001}
    whole = app.search.search(Query(k=10, **how))  # type: ignore[arg-type]
    assert skus(whole) == ["A2", "B2"]
    assert [(drop.sku, drop.lost_to) for drop in whole.dropped] == [("C2", "B2")]
    later = app.search.search(Query(k=10, shown=("A2", "B2"), **how))  # type: ignore[arg-type]
    assert skus(later) == [] and [drop.lost_to for drop in later.dropped] == ["B2"]


def test_pages_of_words_drop_the_same_products_as_one_page(app: App) -> None:
    """Each product has two photos; a match by words shows the first."""
    add(app, {"A2": [1, 50], "B2": [2, 51], "C2": [1, 52], "D2": [50, 53]}, brand="Zarr")
    how = {"words": "zarr", "words_by": "catalogue", "near_match": 0.001}
    whole = skus(app.search.search(Query(k=10, **how)))  # type: ignore[arg-type]
    shown: tuple[str, ...] = ()
    came: list[str] = []
    for _ in range(4):
        result = app.search.search(Query(k=1, shown=shown, **how))  # type: ignore[arg-type]
        shown += result.shown
        came += skus(result)
    assert came == whole == ["A2", "B2", "D2"]


def test_a_product_written_between_two_pages_does_not_repeat_one(years: App) -> None:
    first = ask(years, 500 + 2020, k=5, fold=True)
    add_titled(years, "Y2024", "KESTREL long  coats", 500 + 2020, brand="Kestrel", year=2024)
    add_titled(years, "NEW", "something else", 500 + 2020)
    second = ask(years, 500 + 2020, k=5, fold=True, shown=first.shown)
    assert "Y2024" not in skus(second)
    assert [drop.lost_to for drop in second.dropped if drop.sku == "Y2024"] != []
    assert skus(second)[0] == "NEW"
    assert not set(skus(second)) & set(first.shown)


def test_near_duplicates_are_dropped_with_their_distance_and_the_match_they_lost_to(
    app: App,
) -> None:
    add(app, {**numbered(20), "SAME": [3], "QUERY": [1000]})
    app.indexer.rebuild()
    result = ask(app, k=30, near_query=0.001, near_match=0.001)
    assert len(result.matches) == 20
    by_sku = {drop.sku: drop for drop in result.dropped}
    assert by_sku["QUERY"].rule == LIKE_QUERY and by_sku["QUERY"].lost_to is None
    assert by_sku["QUERY"].distance == pytest.approx(0, abs=1e-6)
    assert by_sku["SAME"].rule == LIKE_MATCH and by_sku["SAME"].lost_to == "P0003"
    assert by_sku["SAME"].distance == pytest.approx(0, abs=1e-6)


def test_a_page_is_full_however_many_look_the_same(app: App) -> None:
    """A hundred products with one photo, nearer than all others."""
    add(app, {f"S{n:03}": [1000] for n in range(100)} | numbered(15))
    app.indexer.rebuild()
    result = ask(app, k=12, near_match=0.0)
    assert len(result.matches) == 12
    assert [sku[0] for sku in skus(result)] == ["S"] + ["P"] * 11
    assert len(result.dropped) == 99


def test_a_page_that_drops_nearly_everything_is_given_up_with_a_reason(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large catalogue must not be loaded to find that all of it is dropped."""
    monkeypatch.setattr(page_budget, "MAX_CANDIDATES", 100)
    add(app, numbered(900))
    result = ask(app, k=5, near_match=2.0)
    assert len(result.matches) == 1 and len(result.dropped) < 400
    assert "too much like better matches" in (result.plan.shortfall or "")
    assert "stopped after" in (result.plan.shortfall or "")
    assert "stopped" not in (ask(app, k=5, near_match=0.0).plan.shortfall or "")


def test_a_distance_that_covers_everything_leaves_one_product_of_one_retrieval(app: App) -> None:
    add(app, numbered(900))
    result = ask(app, k=5, near_match=2.0)
    assert len(result.matches) == 1 and len(result.dropped) == MIN_DEDUPLICATED - 1
    assert "ask for smaller distances" in (result.plan.shortfall or "")
    none = ask(app, k=5, near_query=2.0)
    assert not none.matches and len(none.dropped) == MIN_DEDUPLICATED


def test_a_distance_that_covers_nearly_everything_is_given_up_after_two_retrievals(
    app: App,
) -> None:
    add(app, numbered(900))
    result = ask(app, k=5, near_match=1.9)
    counts = result.plan.shortfall_counts
    assert len(result.matches) == 1 and counts is not None
    assert counts.gave_up_after == page_budget.FOLD_FACTOR * MIN_DEDUPLICATED
    assert "ask for smaller distances" in (result.plan.shortfall or "")


def test_a_page_that_takes_too_long_is_given_up_after_the_second_retrieval(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_budget, "PAGE_CPU_S", 0.0)
    monkeypatch.setattr(page_budget, "WIDE_DISTANCE", 3.0)
    monkeypatch.setattr(page_budget, "LARGEST_DISTANCE", 3.0)
    add(app, numbered(900))
    result = ask(app, k=5, near_match=2.0)
    size = page_budget.GROWTH_FACTOR * (
        len(ask(app, k=5, near_match=1e-9).dropped) + MIN_DEDUPLICATED
    )
    assert len(result.matches) == 1 and len(result.dropped) == size - 1
    assert f"stopped after {size} products" in (result.plan.shortfall or "")


def test_words_beyond_the_most_candidates_are_not_read(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_budget, "MAX_CANDIDATES", 300)
    monkeypatch.setattr(page_budget, "WIDE_DISTANCE", 3.0)
    monkeypatch.setattr(page_budget, "LARGEST_DISTANCE", 3.0)
    add(app, numbered(900))
    result = app.search.search(Query(words="title", k=5, near_match=2.0))
    assert "stopped after 300 products" in (result.plan.shortfall or "")


def test_more_like_a_product_never_shows_it_on_any_page(years: App) -> None:
    shown: tuple[str, ...] = ()
    for _ in range(8):
        result = years.search.search(Query(sku="Y2020", k=5, fold=True, shown=shown))
        shown += result.shown
    assert "Y2020" not in shown


def test_a_page_is_consistent_when_verdicts_change_meanwhile(
    years: App, sql: psycopg.Connection
) -> None:
    sql.execute(
        "INSERT INTO duplicate_verdict (sku_a, sku_b, same, decided_by)"
        " VALUES ('D00', 'nobody', true, 'x')"
    )
    assert len(ask(years, k=31, fold=True).matches) == 31
