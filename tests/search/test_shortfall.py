"""A short page counts each cause by itself, as plain SQL counts it, and words it truly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bootstrap import App
from app.db.engine import snapshot
from app.db.queries import match_counts
from app.db.queries.nearest import EVERYTHING
from app.search.filters import parse
from app.search.shortfall import shortfall_text
from app.types import Count, Query, SearchResult, Shortfall
from support.colours import photo
from support.copies import copied_for
from support.shop import add, numbered, vectors
from support.text_encoder import ask

TITLES = ("red lamp", "blue lamp", "red coat", "wool coat", "blue wool", "lamp")
BRANDS = ("kestrel", "alder", "solano")
WORDS = ("red", "blue", "lamp", "coat", "wool", "kestrel")

MEETS = """
SELECT count(*) FROM product AS p
WHERE (%(words)s::text[] IS NULL OR %(words)s::text[] &&
        regexp_split_to_array(concat_ws(' ', p.title, p.brand, p.category, p.colour), ' '))
    AND (%(brand)s::text IS NULL OR p.brand = %(brand)s)
    AND (%(year)s::integer IS NULL OR p.year >= %(year)s)
    AND (%(pictured)s = EXISTS (
        SELECT FROM product_picture AS pp JOIN embedding AS e USING (picture_id)
        WHERE pp.product_id = p.id))
    AND NOT p.sku = ANY(%(without)s)
    AND (%(below)s::float8 IS NULL OR %(below)s > (
        SELECT max(1 - (e.vec <=> %(q)s::halfvec))
        FROM product_picture AS pp JOIN embedding AS e USING (picture_id)
        WHERE pp.product_id = p.id))"""


def fill(app: App) -> None:
    """Sixty products of six titles, three brands and three years; each twelfth has no picture."""
    add(app, numbered(60))
    with psycopg.connect(str(app.settings.database_url), autocommit=True) as sql:
        sql.execute(
            "UPDATE product SET title = (%s::text[])[1 + id %% 6], year = 2020 + id %% 3,"
            " brand = (%s::text[])[1 + id * 7 / 5 %% 3]", [list(TITLES), list(BRANDS)],
        )  # fmt: skip
        sql.execute("DELETE FROM product_picture WHERE product_id % 12 = 0")
    app.indexer.rebuild()


database_url = copied_for("shop", fill)


@pytest.fixture
def shop(app: App) -> App:
    return app


def count(sql: psycopg.Connection, **values: Any) -> int:
    """How many products plain SQL counts; conditions that are not given exclude none."""
    defaults = {"words": None, "brand": None, "year": None, "pictured": True, "without": []}
    row = sql.execute(MEETS, defaults | {"below": None, "q": None} | values).fetchone()
    assert row is not None
    return int(row[0])


def search(app: App, **more: Any) -> SearchResult:
    return app.search.search(Query(**more))


def texts(result: SearchResult) -> str:
    assert result.plan.shortfall is not None
    return result.plan.shortfall


queries = st.fixed_dictionaries(
    {
        "words": st.none() | st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True),
        "brand": st.none() | st.sampled_from((*BRANDS, "nobody")),
        "year": st.none() | st.sampled_from((2019, 2021, 2022, 2030)),
        "minimum": st.none() | st.floats(-0.2, 0.9),
        "by_photo": st.booleans(),
        "fold": st.booleans(),
        "near": st.none() | st.sampled_from((0.3, 0.6)),
        "shown": st.lists(st.integers(0, 59), max_size=5, unique=True),
    }
)


def test_every_cause_is_counted_as_by_plain_sql(shop: App, sql: psycopg.Connection) -> None:
    vector = vectors(shop, [1000])[0].astype(np.float16)

    @settings(max_examples=50, deadline=None)
    @given(queries)
    def check(asked: dict[str, Any]) -> None:
        by_photo = asked["by_photo"] or asked["words"] is None
        limits = [f"brand={asked['brand']}"] if asked["brand"] else []
        limits += [f"year>={asked['year']}"] if asked["year"] else []
        minimum = asked["minimum"] if by_photo else None
        shown = [f"P{n:04}" for n in asked["shown"]]
        plan = search(
            shop, k=100, filters=parse(limits), shown=tuple(shown), fold=asked["fold"],
            near_match=asked["near"], min_similarity=minimum,
            picture=photo(1000) if by_photo else None,
            words=None if by_photo else " ".join(asked["words"]),
        ).plan  # fmt: skip
        short = plan.shortfall_counts
        assert short is not None and plan.shortfall
        words = {"words": None if by_photo else asked["words"]}
        filters = {"brand": asked["brand"], "year": asked["year"]}
        both = words | filters
        assert short.words == (None if by_photo else Count(count(sql, **words)))
        assert short.filters == (Count(count(sql, **filters)) if limits else None)
        assert short.matching == Count(count(sql, **both))
        below = {"below": minimum, "q": str(vector.tolist())}
        missing = count(sql, **both, **below, without=shown) if minimum is not None else 0
        assert short.below_minimum == Count(missing)
        assert short.earlier == short.matching.products - count(sql, **both, without=shown)
        if plan.path in ("exact", "words") or not short.returned:
            assert short.without_picture == Count(count(sql, **both, pictured=False))
        taken = (
            short.folded, short.like_query, short.like_match, short.already_shown, short.earlier
        )  # fmt: skip
        assert short.matching.products == short.returned + missing + sum(taken)
        assert bool(short.folded or short.already_shown) <= asked["fold"]

    check()


# The sentences


def test_filters_that_exclude_everything_are_named(shop: App) -> None:
    assert texts(ask(shop, filters=parse(["brand=nobody"]))) == "No products match these filters."


def test_words_that_exist_are_not_blamed_for_the_filter(shop: App) -> None:
    result = search(shop, words="lamp", filters=parse(["brand=nobody", "year>=2020"]))
    assert texts(result) == "25 products have these words, none of them passes the filters."
    assert (result.plan.shortfall_counts or Shortfall(0, Count(0))).words == Count(25)


def test_filters_that_match_are_not_blamed_for_the_words(shop: App) -> None:
    said = texts(search(shop, words="umbrella", filters=parse(["brand=kestrel"])))
    assert said.startswith("No products have these words; ")
    assert said.endswith(" match these filters.")


def test_products_without_a_picture_are_named(shop: App, sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO product (sku, brand) VALUES ('bare', 'bare')")
    assert texts(ask(shop, filters=parse(["brand=bare"]))) == (
        "No products match these filters; 1 has no picture with an embedding under the active"
        " model."
    )


@pytest.mark.parametrize(
    ("short", "query", "said"),
    [
        (Shortfall(1, Count(1), filters=Count(1)), {}, "Only 1 product matches these filters."),
        (
            Shortfall(2, Count(2), words=Count(2)), {"words": "a"},
            "Only 2 products have these words.",
        ),
        (
            Shortfall(2, Count(2), words=Count(2)), {"words": "a b"},
            "Only 2 products have any of these words.",
        ),
        (
            Shortfall(0, Count(0), words=Count(0), filters=Count(0)), {"words": "a"},
            "No products have these words.",
        ),
        (
            Shortfall(3, Count(3), words=Count(1255), filters=Count(9)), {"words": "a"},
            "1,255 products have these words, 3 of them pass the filters.",
        ),
        (
            Shortfall(1, Count(1), words=Count(1), filters=Count(1)), {"words": "a"},
            "1 product has these words, which passes the filters.",
        ),
        (
            Shortfall(3, Count(10_000, True), below_minimum=Count(9997, True)),
            {"min_similarity": 0.8},
            "Only 3 of more than 10,000 products are at least as similar to the query as 0.80.",
        ),
        (
            Shortfall(1, Count(9), filters=Count(9), below_minimum=Count(8)),
            {"min_similarity": 0.975, "picture": b"", "region": (0, 0, 1, 1)},
            "9 products match these filters; only 1 of them is at least as similar to this part of"
            " the photo as 0.9750.",
        ),
        (
            Shortfall(2, Count(8), filters=Count(8), folded=5, earlier=1), {},
            "8 products match these filters; of these, 5 were folded into others and 1 was shown"
            " before or asked with.",
        ),
    ],
)  # fmt: skip
def test_the_sentence_names_what_took_the_products_away(
    short: Shortfall, query: dict[str, Any], said: str
) -> None:
    assert shortfall_text(short, Query(**query)) == said


def test_hints_follow_as_sentences() -> None:
    said = shortfall_text(Shortfall(0, Count(0), filters=Count(0)), Query(), ["why not?", "or so"])
    assert said == "No products match these filters. Why not? Or so."


# The cost of counting


@pytest.mark.parametrize(("at_most", "expected"), [(54, Count(54, True)), (55, Count(55))])
def test_a_count_stops_at_its_limit_and_says_so(shop: App, at_most: int, expected: Count) -> None:
    with snapshot(shop.engine) as connection:
        model = shop.catalog.model()
        counted = match_counts.count(connection, model, EVERYTHING, at_most=at_most)
    assert counted == expected
    assert str(Count(10_000, True)) == "more than 10,000"


def test_a_full_page_counts_nothing(shop: App) -> None:
    statements: Sequence[str] = recorded(shop)
    plan = search(shop, words="lamp", k=3).plan
    assert plan.shortfall is None and plan.shortfall_counts is None
    assert not any("AS met" in statement for statement in statements)
    assert search(shop, words="lamp", k=60).plan.shortfall_counts is not None
    assert any("AS met" in statement for statement in statements)


def test_the_counts_are_plain_values_for_programs(shop: App) -> None:
    short = ask(shop, filters=parse(["brand=nobody"])).plan.shortfall_counts
    assert short is not None
    assert asdict(short)["filters"] == {"products": 0, "more": False}


def recorded(app: App) -> list[str]:
    """The statements that the service sends from now on."""
    from sqlalchemy import event

    statements: list[str] = []

    @event.listens_for(app.search_engine, "before_cursor_execute")
    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    return statements
