"""One statement answers every kind of query as several do, and what it cannot read, it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.db.queries import calibration, page_lookups
from app.db.queries.fold_pictures import MAX_KEYS
from app.db.queries.single_statement import StatementRequest
from app.duplicates import verdicts
from app.duplicates.normalization import identity_key
from app.index.faiss_index import AnnIndex
from app.search import page_budget
from app.search.retrieval import FetchRound, initial_fetch, nominate
from app.types import Calibration, Count, CutOff, Filters, Product, Query, SearchResult
from support.colours import photo
from support.copies import copied_for
from support.shop import add_products, sha, vectors
from support.statements import Slow

K = 6


def shop(app: App) -> None:
    """60 products: some listed twice with one picture or two, some with the same words only."""
    products = []
    for n in range(40):
        colour = ("red", "blue")[n % 2]
        product = Product(
            f"P{n:02}", f"Kestrel Marria{n} {colour} blazer", "Kestrel", "blazer", colour,
            2020 + n % 4, attributes={"size": str(n % 3)},
        )  # fmt: skip
        products.append((product, [n]))
        if n % 4 == 0:  # listed again with its picture, in another year
            again = replace(product, sku=f"AGAIN{n:02}", year=2010)
            products.append((again, [n]))
        if n % 8 == 1:  # the same words, another picture, so far away that it is another article
            products.append((replace(product, sku=f"LIKE{n:02}"), [1000 + n]))
        if n % 8 == 3:  # several pictures
            products.append((replace(product, sku=f"MORE{n:02}", title=f"Sol {n}"), [n, 2000 + n]))
    add_products(app, products)
    verdicts.decide(app.engine, "P02", "P03", True, "a test")
    verdicts.decide(app.engine, "P00", "AGAIN00", False, "a test")


def fill(app: App) -> None:
    shop(app)
    app.indexer.rebuild()


database_url = copied_for("slow", fill)


@pytest.fixture
def slow(app: App) -> Slow:
    """The shop, indexed, whose index has answered once."""
    app.search.search(Query(picture=photo(500)))
    return Slow(app)


def in_statements(app: App, query: Query, monkeypatch: pytest.MonkeyPatch) -> SearchResult:
    """The result of several statements."""
    with monkeypatch.context() as patch:
        patch.setattr(app.search, "_in_one_statement", lambda *_: None)
        return app.search.search(query)


def vector_query(app: App, seed: int) -> Query:
    [vector] = vectors(app, [seed])
    return Query(vector=vector, model_id=1, k=K)


KINDS: dict[str, Callable[[Query], Query]] = {
    "plain": lambda query: query,
    "fold": lambda query: replace(query, fold=True),
    "minimum similarity": lambda query: replace(query, min_similarity=-1.0),
    "not the same photo": lambda query: replace(query, near_query=1e-3),
    "near-duplicates": lambda query: replace(query, near_match=0.02),
    "everything": lambda query: replace(query, fold=True, near_query=1e-3, near_match=0.02),
    "one": lambda query: replace(query, fold=True, k=1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 8, 77])
def test_one_statement_gives_the_result_of_several(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch, kind: str, seed: int
) -> None:
    query = KINDS[kind](vector_query(app, seed))
    found = app.search.search(query)
    assert not slow.took()
    several = in_statements(app, query, monkeypatch)
    assert slow.took()
    assert found.matches == several.matches and found.dropped == several.dropped
    assert len(found.matches) == query.k


@pytest.mark.parametrize("fold", [False, True])
def test_a_sku_and_its_further_pages_take_one_statement_each(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch, fold: bool
) -> None:
    query, shown = Query(sku="MORE03", k=K, fold=fold), tuple[str, ...]()
    for _ in range(3):
        query = replace(query, shown=shown)
        found = app.search.search(query)
        assert not slow.took()
        several = in_statements(app, query, monkeypatch)
        assert slow.took()
        assert found.matches == several.matches and found.dropped == several.dropped
        assert not {match.product.sku for match in found.matches} & {*shown, "MORE03"}
        shown = (*shown, *found.shown)


def test_filtered_pages_are_folded_in_one_statement(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = replace(vector_query(app, 5), fold=True, filters=Filters({"colour": "red"}))
    for _ in range(3):  # the pictures that pass are read
        app.search.search(query)
    slow.took()
    found = app.search.search(query)
    assert not slow.took()
    assert found.matches == in_statements(app, query, monkeypatch).matches


def test_verdicts_on_a_product_that_is_elsewhere_keep_two_of_the_page_apart(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = replace(vector_query(app, 8), fold=True, k=1)
    [match] = app.search.search(query).matches
    assert match.folded, "one of the same words and picture"
    add_products(app, [(Product(sku, f"Orova {sku}"), [3000]) for sku in ("GONE", "LOST")])
    verdicts.decide(app.engine, "P08", "GONE", True, "a test")
    verdicts.decide(app.engine, "GONE", "LOST", True, "a test")
    verdicts.decide(app.engine, "LOST", "AGAIN08", False, "a test")
    app.catalog.delete(["GONE", "LOST"])
    slow.took()
    [match] = app.search.search(query).matches
    assert not slow.took() and not match.folded
    assert [match] == list(in_statements(app, query, monkeypatch).matches)


def test_folds_follow_verdicts_words_and_pictures_of_now(
    app: App, slow: Slow, sql: psycopg.Connection
) -> None:
    query = replace(vector_query(app, 4), fold=True, k=1)
    [match] = app.search.search(query).matches
    assert {fold.product.sku for fold in match.folded} == {"AGAIN04"} - {match.product.sku} or (
        match.product.sku == "AGAIN04"
    )
    verdicts.decide(app.engine, "P04", "AGAIN04", False, "a test")
    [match] = app.search.search(query).matches
    assert not match.folded and match.similar_count == 1
    [listing] = app.search.similar_listings(match).similar
    assert listing.reason == "verdict"
    slow.took()
    sql.execute("DELETE FROM duplicate_verdict WHERE 'P04' IN (sku_a, sku_b)")
    changed = Product("AGAIN04", "Corano shade", None, "blazer", "red")
    sql.execute(
        "UPDATE product SET title = %s, brand = NULL, identity_key = %s WHERE sku = 'AGAIN04'",
        [changed.title, identity_key(changed)],
    )
    [match] = app.search.search(query).matches
    assert not match.folded and not match.similar_count
    assert not slow.took()


def test_pictures_of_products_that_are_alike_by_a_typing_error_are_read_as_well(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    typo = Product("TYPO", "Kestrell Marria6 red blazer", "Kestrel", "blazer", "red", 2022)
    add_products(app, [(typo, [6])])
    query = replace(vector_query(app, 6), fold=True)
    found = app.search.search(query)
    assert not slow.took()
    assert found.matches == in_statements(app, query, monkeypatch).matches
    assert "TYPO" in found.shown and "TYPO" not in [m.product.sku for m in found.matches[1:]]


def test_hundreds_of_listings_end_a_page_with_the_reason_and_the_next_page_goes_on(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten products are retrieved for a page of three; eighteen listings of one are the nearest."""
    monkeypatch.setattr(page_budget, "MIN_DEDUPLICATED", 4)
    monkeypatch.setattr(page_budget, "FOLD_FACTOR", 2)
    add_products(app, [(Product(f"SAME{n:02}", "Orova lamp"), [800]) for n in range(18)])
    query, found = replace(vector_query(app, 800), fold=True, k=3), None
    pages: list[SearchResult] = []
    while found is None or found.gave_up:
        slow.took()
        found = app.search.search(query)
        assert not slow.took()
        several = in_statements(app, query, monkeypatch)
        assert (found.matches, found.dropped) == (several.matches, several.dropped)
        assert found.plan.shortfall_counts == several.plan.shortfall_counts
        query = replace(query, shown=(*query.shown, *found.shown))
        pages.append(found)
    assert [len(each.matches) for each in pages] == [1, 2, 3]
    assert "stopped after 10 products" in str(pages[0].plan.shortfall)
    assert "the next page goes on" in str(pages[0].plan.shortfall)
    shown = [match.product.sku for each in pages for match in each.matches]
    assert len(set(shown)) == 6 and sum(sku.startswith("SAME") for sku in shown) == 1


def test_a_page_that_was_given_up_with_nothing_to_show_has_no_further_page(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that follows pages to the end would ask the same for ever."""
    monkeypatch.setattr(page_budget, "MIN_DEDUPLICATED", 4)
    monkeypatch.setattr(page_budget, "MAX_CANDIDATES", 4)
    found = app.search.search(replace(vector_query(app, 6), near_query=2.0, k=3))
    counts = found.plan.shortfall_counts
    assert not found.matches and counts is not None and counts.gave_up_after == len(found.dropped)
    assert found.shown == () and not found.gave_up


def test_a_placeholder_is_one_match_in_few_statements(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = app.settings.shared_picture_products + 1
    placeholder = [(Product(f"NONE{n:03}", f"Sol{n} vase"), [700]) for n in range(many)]
    own = Product("NONE000", "Sol0 vase")  # has another picture too, and stands for the others
    add_products(app, [(own, [700, 701]), *placeholder[1:]])
    verdicts.decide(app.engine, "NONE000", "P01", True, "a test")
    query = replace(vector_query(app, 700), fold=True)
    for _ in range(2):
        slow.took()
        found = app.search.search(query)
        assert not slow.took()
        several = in_statements(app, query, monkeypatch)
        assert found.matches == several.matches and found.dropped == several.dropped
        query = replace(query, shown=found.shown)
    [first, *_] = app.search.search(replace(query, shown=())).matches
    assert first.same_picture == Count(many) and len(first.listed) == 12


def test_a_size_chart_that_many_products_show_tells_none_apart(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart = 710
    others = [(Product(f"OTHER{n}", f"Sol{n} vase"), [chart]) for n in range(MAX_KEYS + 1)]
    one, other = (Product(sku, "Orova lamp") for sku in ("LAMP", "LANTERN"))
    add_products(app, [*others, (one, [711, chart]), (other, [712, chart])])
    query = replace(vector_query(app, chart), fold=True, k=2 * MAX_KEYS)
    app.search.search(query)
    slow.took()
    found = app.search.search(query)
    assert not slow.took()
    assert {"LAMP", "LANTERN"} <= {match.product.sku for match in found.matches}
    assert found.matches == in_statements(app, query, monkeypatch).matches


def test_an_unknown_sku_and_a_deleted_one_are_errors_that_suggest(app: App, slow: Slow) -> None:
    for sku in ("P0", "P00X"):
        with pytest.raises(Exception, match="No product of the catalogue has the sku"):
            app.search.search(Query(sku=sku))
    app.catalog.delete(["P07"])
    with pytest.raises(Exception, match="P07"):
        app.search.search(Query(sku="P07"))


def test_thumbnails_beyond_the_first_are_read_as_well(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch, sql: psycopg.Connection
) -> None:
    same = [(Product(f"SAME{n:02}", "Orova lamp", year=2011 - n), [800]) for n in range(12)]
    add_products(app, same)
    slow.took()
    query = replace(vector_query(app, 800), fold=True)
    found = app.search.search(query)
    assert not slow.took()
    assert all(match.thumbnail for match in found.matches)
    assert found.matches == in_statements(app, query, monkeypatch).matches
    sql.execute("UPDATE picture SET thumbnail = '' WHERE sha256 = %s", [sha(800)])
    assert [bool(match.thumbnail) for match in app.search.search(query).matches] == [False] + [
        True
    ] * (K - 1)


def test_rounded_vectors_and_products_of_earlier_pages_keep_near_duplicates_away(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = replace(vector_query(app, 0), near_match=1e-3)
    first = app.search.search(query)
    second = replace(query, shown=first.shown)
    slow.took()
    found = app.search.search(second)
    assert not slow.took()
    several = in_statements(app, second, monkeypatch)
    assert found.matches == several.matches and found.dropped == several.dropped
    assert np.isfinite([match.similarity for match in found.matches]).all()


def test_listings_are_joined_by_the_cut_of_a_category_that_no_product_of_the_page_has(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = range(900, 960)
    rows = dict(zip(seeds, vectors(app, seeds), strict=True))
    far, farthest = sorted(seeds, key=lambda seed: float(rows[seed] @ rows[900]))[:2]
    match = Product("MATCH", "Selunta coat", None, "Coats", None)
    others = [replace(match, sku=sku, category="Coat") for sku in ("SAME", "AGAIN")]
    add_products(app, [(match, [900]), (others[0], [far]), (others[1], [farthest])])
    verdicts.decide(app.engine, "MATCH", "SAME", True, "a test")
    unknown = CutOff(None, 0, 0)
    with app.engine.begin() as connection:
        everywhere = Calibration("Coat", unknown, CutOff(2.0, 5, 5), unknown)
        calibration.replace(connection, 1, [everywhere])
    slow.took()
    query = replace(vector_query(app, 900), fold=True, k=1, listings=True)
    [found] = app.search.search(query).matches
    [expected] = in_statements(app, query, monkeypatch).matches
    assert found.similar == expected.similar == ()


@pytest.mark.parametrize("asked", [Query(sku="P08"), Query(sku="AGAIN08", shown=("P08",))])
def test_a_product_that_is_added_again_meanwhile_is_not_shown_again(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch, asked: Query
) -> None:
    earlier = page_lookups.own_vectors if asked.sku == "P08" else page_lookups.earlier

    def added_again(*args: Any, **options: Any) -> Any:
        found = earlier(*args, **options)
        app.catalog.delete(["P08"])
        add_products(app, [(Product("P08", "Kestrel Marria8 red blazer"), [8])])
        return found

    monkeypatch.setattr(page_lookups, earlier.__name__, added_again)
    assert "P08" not in [match.product.sku for match in app.search.search(asked).matches]


def test_later_pages_ask_the_index_for_no_more_than_the_first(
    app: App, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures that were shown are passed over in the index."""
    fast_path = app.search._fast_path
    assert fast_path is not None
    run, fetched, compared = fast_path._run, list[int](), list[int]()

    def noted(index: AnnIndex, request: StatementRequest, fetch_round: FetchRound) -> Any:
        fetched.append(fetch_round.n)
        compared.append(len(nominate(index, request.vector, fetch_round).ids))
        return run(index, request, fetch_round)

    monkeypatch.setattr(fast_path, "_run", noted)
    query = vector_query(app, 0)
    for _ in range(5):
        query = replace(query, shown=(*query.shown, *app.search.search(query).shown))
    assert not slow.took()
    assert fetched == compared == [initial_fetch(K)] * 5


def test_a_picture_that_an_earlier_page_has_shown_finds_the_other_products_that_show_it(
    app: App, slow: Slow
) -> None:
    add_products(app, [(Product(f"SHARE{n}", f"Orova lamp {n}"), [800]) for n in range(4)])
    app.indexer.rebuild()
    app.search.open_index()
    slow.took()
    query, pages = replace(vector_query(app, 800), k=2), list[list[str]]()
    for _ in range(2):
        found = app.search.search(query)
        query = replace(query, shown=(*query.shown, *found.shown))
        pages.append([match.product.sku for match in found.matches])
    assert not slow.took()
    assert pages == [["SHARE0", "SHARE1"], ["SHARE2", "SHARE3"]]


def test_what_a_page_drops_as_shown_before_need_not_be_found_by_the_next(
    app: App, slow: Slow
) -> None:
    query = replace(vector_query(app, 800), fold=True, k=2, shown=("SAME",))
    products = [(Product(sku, "Orova lamp"), [800]) for sku in ("SAME", "AGAIN")]
    add_products(app, products)
    found = app.search.search(query)
    assert [drop.sku for drop in found.dropped] == ["AGAIN"] and "AGAIN" in found.shown
    later = app.search.search(replace(query, shown=(*query.shown, *found.shown)))
    assert not slow.took() and not later.dropped and len(later.matches) == 2
