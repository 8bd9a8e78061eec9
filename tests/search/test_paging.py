"""Pages: no product twice or missing, and a reason for each dropped one."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bootstrap import App
from app.config import Settings
from app.db.queries import calibration
from app.encoders.base import EncoderChoice
from app.errors import BadInput
from app.index import faiss_index
from app.search import page_budget
from app.search.dedup import LIKE_MATCH, LIKE_QUERY
from app.search.fusion import fuse
from app.search.page_budget import MIN_DEDUPLICATED
from app.search.query_encoder import EncodedQuery
from app.types import Calibration, CutOff, Query
from support.colours import photo
from support.copies import copied_for
from support.recall_queries import few_queries
from support.shop import add, numbered, vectors
from support.text_encoder import TextEncoder, add_titled, ask, skus

WORDS = "kestrel marlo blazer alder tirna coat solano verra polo hanako quist shorts"


NOUNS = WORDS.split()


@pytest.fixture
def reading(settings: Settings) -> Iterator[App]:
    """The same services with an encoder that reads words."""
    with App(settings, choose=lambda model, **_: EncoderChoice(TextEncoder(), "reads")) as app:
        yield app


def all_pictures_agree(app: App) -> None:
    """Calibrate so that products with the same words fold, whatever their photos."""
    unknown = CutOff(None, 0, 0)
    row = Calibration(None, unknown, CutOff(2.0, 20, 20), CutOff(2.0, 20, 20))
    with app.engine.begin() as connection:
        calibration.replace(connection, app.catalog.model().id, [row])


def fill_years(app: App) -> None:
    """Thirty different products, and one that is there for six years with six photos."""
    for n in range(30):
        title = f"{NOUNS[n % 12]} {NOUNS[(5 * n + 1) % 12]} {'abcdefghij'[n // 3]}ovar"
        add_titled(app, f"D{n:02}", title, n, brand=f"brand {'xyz'[n % 3]}")
    for year in range(2018, 2024):
        add_titled(app, f"Y{year}", "Kestrel long coat", 500 + year, brand="Kestrel", year=year)
    all_pictures_agree(app)
    app.indexer.rebuild()


database_url = copied_for("years", fill_years)


@pytest.fixture
def years(app: App) -> App:
    return app


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


# Richer queries


def test_several_pictures_are_averaged(app: App) -> None:
    add(app, numbered(40))
    [a, b] = vectors(app, [1000, 2000])
    mean = (a + b) / 2
    vector = app.search.search(Query(vector=mean, model_id=1, k=5))
    pictures = ask(app, 1000, more_pictures=(photo(2000),), k=5)
    assert [(m.product.sku, round(m.similarity or 0, 5)) for m in pictures.matches] == [
        (m.product.sku, round(m.similarity or 0, 5)) for m in vector.matches
    ]


def test_a_region_is_searched_as_if_it_were_the_whole_picture(app: App) -> None:
    from io import BytesIO

    from PIL import Image

    add(app, numbered(40))
    both = Image.new("RGB", (200, 100))
    for n, place in ((4, 0), (9, 100)):
        part = Image.open(BytesIO(photo(n))).resize((100, 100), Image.Resampling.NEAREST)
        both.paste(part, (place, 0))
    file = BytesIO()
    both.save(file, "PNG")
    for region, sku in (((0, 0, 0.5, 1), "P0004"), ((0.5, 0, 1, 1), "P0009")):
        result = app.search.search(Query(picture=file.getvalue(), region=region, k=1))
        assert skus(result) == [sku]
        assert result.matches[0].similarity == pytest.approx(1, abs=1e-3)


def test_negative_examples_move_the_query_away(app: App) -> None:
    add(app, {**numbered(40), "A": [1000], "B": [2000]})
    liked = ask(app, 1000, more_pictures=(photo(2000),), k=2)
    assert set(skus(liked)) == {"A", "B"}
    without = ask(app, 1000, more_pictures=(photo(2000),), without_pictures=(photo(2000),), k=42)
    assert skus(without)[0] == "A"
    assert skus(without).index("B") > 0
    with pytest.raises(BadInput, match="cancel"):
        ask(app, 1000, without_pictures=(photo(1000),), without_weight=1.0)


def test_words_are_found_in_the_catalogue_whatever_the_model_reads(years: App) -> None:
    result = years.search.search(Query(words="coat kestrel LÖNG", k=10, fold=True))
    assert result.plan.path == "words" and result.plan.words == "catalogue"
    assert result.matches[0].product.title == "Kestrel long coat"
    assert result.matches[0].product.sku == "Y2023", "equally like the words: the newest stays"
    assert result.matches[0].similarity is None
    assert len(result.matches[0].folded) == 5
    nothing = years.search.search(Query(words="zzz' & | ! \\ :* <->"))
    assert nothing.matches == () and nothing.plan.shortfall


def test_words_alone_cannot_be_compared_by_distance(years: App) -> None:
    for more in ({"near_query": 0.5}, {"without_pictures": (photo(1),)}):
        with pytest.raises(BadInput, match="no picture to compare"):
            years.search.search(Query(words="coat", **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("words", ["coat -red", 'coat -"red thing"', "-red coat"])
def test_a_word_after_a_minus_is_excluded(app: App, words: str) -> None:
    add_titled(app, "COAT", "a coat", 1)
    add_titled(app, "BOTH", "a coat, red thing", 2)
    add_titled(app, "RED", "red thing", 3)
    assert skus(app.search.search(Query(words=words))) == ["COAT"]
    assert app.search.search(Query(words="-red")).matches == ()


def test_too_long_words_are_refused(app: App) -> None:
    for more in ({"words": "x " * 600}, {"words": "x", "without_words": "y" * 2000}):
        with pytest.raises(BadInput, match="at most 1000"):
            app.search.search(Query(**more))  # type: ignore[arg-type]


def test_the_plan_names_what_read_the_words_on_every_path(reading: App) -> None:
    add(reading, numbered(60))
    reading.indexer.rebuild()
    for _ in range(3):
        plan = reading.search.search(Query(words="33", words_by="model")).plan
        assert (plan.path, plan.words) == ("faiss", "model")


@pytest.mark.parametrize(("by", "expected"), [("model", 1), ("catalogue", 0), (None, 1)])
def test_queries_by_words_are_sampled_if_the_model_read_them(
    settings: Settings, sql: psycopg.Connection, by: str | None, expected: int
) -> None:
    with App(settings, choose=lambda model, **_: EncoderChoice(TextEncoder(), "reads")) as app:
        add(app, numbered(20))
        app.search.search(Query(words="title 7", words_by=by, k=3))  # type: ignore[arg-type]
    assert sql.execute("SELECT count(*) FROM query_sample").fetchone() == (expected,)


def test_words_with_a_model_that_reads_are_fused(reading: App) -> None:
    add_titled(reading, "TEXT", "a 33 red coat", 1)
    add_titled(reading, "LOOKS", "nothing of it", 33)
    add_titled(reading, "BOTH", "coat 33 red", 33)
    add(reading, numbered(20, first=100))
    both = reading.search.search(Query(words="red coat 33", k=3))
    assert skus(both)[0] == "BOTH" and set(skus(both)) == {"BOTH", "TEXT", "LOOKS"}
    assert both.plan.words == "model and catalogue"
    model = reading.search.search(Query(words="red coat 33", k=2, words_by="model"))
    assert set(skus(model)) == {"LOOKS", "BOTH"} and model.plan.words == "model"
    catalogue = reading.search.search(Query(words="red coat 33", k=9, words_by="catalogue"))
    assert set(skus(catalogue)) == {"TEXT", "BOTH"} and catalogue.plan.words == "catalogue"


def test_a_picture_and_words_by_their_weight(app: App) -> None:
    add(app, numbered(40))
    add_titled(app, "RED", "red thing", 3000)
    add_titled(app, "LIKE", "blue thing", 1000)
    assert skus(ask(app, words="red", words_weight=0.0, k=1)) == ["LIKE"]
    only_words = ask(app, words="red", words_weight=1.0, k=42)
    assert skus(only_words)[0] == "RED"
    assert skus(only_words)[1:] == [sku for sku in skus(ask(app, k=42)) if sku != "RED"], (
        "what the words do not say comes in the order of the picture"
    )
    assert set(skus(ask(app, words="red", words_weight=0.5, k=2))) >= {"LIKE"}


def test_words_are_searched_within_the_filter(years: App) -> None:
    from app.search.filters import parse

    found = years.search.search(Query(words="coat", filters=parse(["year=2021"]), k=5))
    assert skus(found) == ["Y2021"]


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=10), max_size=4))
def test_fusion_does_not_depend_on_the_order_of_the_lists(lists: list[list[int]]) -> None:
    weighted = [(1.0, each) for each in lists]
    one, other = fuse(weighted), fuse(weighted[::-1])
    assert one == pytest.approx(other)
    assert sorted(one) == sorted({id_ for each in lists for id_ in each})
    ordered = list(one.values())
    assert ordered == sorted(ordered, reverse=True)


def test_fusion_counts_ranks_by_the_source_it_names() -> None:
    assert fuse([(1.0, [7, 8]), (1.0, [8, 9])]) == {
        8: pytest.approx(1 / 62 + 1 / 61), 7: pytest.approx(1 / 61), 9: pytest.approx(1 / 62),
    }  # fmt: skip


def test_a_query_without_vectors_has_no_direction() -> None:
    assert EncodedQuery().direction(Query(words="red")) is None


def test_a_page_is_consistent_when_verdicts_change_meanwhile(
    years: App, sql: psycopg.Connection
) -> None:
    sql.execute(
        "INSERT INTO duplicate_verdict (sku_a, sku_b, same, decided_by)"
        " VALUES ('D00', 'nobody', true, 'x')"
    )
    assert len(ask(years, k=31, fold=True).matches) == 31
