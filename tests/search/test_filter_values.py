"""Values of filters match in any case, and an unknown value names the nearest ones."""

from __future__ import annotations

import pytest

from app.bootstrap import App
from app.cli.search_output import as_dict
from app.search.explain import reading_texts
from app.search.filters import parse
from app.types import Query, SearchResult
from support.colours import photo
from support.copies import copied_for
from support.exact import skus
from support.shop import add


def fill(app: App) -> None:
    add(app, {"A-1": [1], "a-2": [2]}, category="Shirts", brand="Café Néo", currency="EUR")
    add(app, {"B": [3]}, category="SHIRTS", colour="Red")
    add(app, {"C": [4]}, category="Shoes", colour="red")
    app.indexer.rebuild()


database_url = copied_for("shop", fill)


@pytest.fixture
def shop(app: App) -> App:
    return app


def ask(app: App, *filters: str) -> SearchResult:
    return app.search.search(Query(picture=photo(1), filters=parse(filters)))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["category=shirts"], {"A-1", "a-2", "B"}),
        (["category=SHIRTS", "colour=RED"], {"B"}),
        (["colour=red"], {"B", "C"}),
        (["category=shoes", "category=shirts"], {"A-1", "a-2", "B", "C"}),
        (["brand=CAFÉ néo"], {"A-1", "a-2"}),
        (["sku=A-2"], {"a-2"}),
        (["sku=A-2", "sku=b"], {"a-2", "B"}),
        (["currency=eur"], {"A-1", "a-2"}),
        (["title=TITLE b"], {"B"}),
    ],
)
def test_a_filter_matches_values_in_any_case(
    shop: App, filters: list[str], found: set[str]
) -> None:
    for _ in range(3):  # the second one reads the list of the filter, the third one uses it
        result = ask(shop, *filters)
        assert set(skus(result)) == found
        assert result.plan.unknown == ()


def test_a_new_spelling_passes_a_cached_filter_at_once(shop: App) -> None:
    for _ in range(3):
        assert len(skus(ask(shop, "category=shirts"))) == 3
    add(shop, {"NEW": [5]}, category="sHirts")
    assert set(skus(ask(shop, "category=shirts"))) == {"A-1", "a-2", "B", "NEW"}


def test_an_unknown_value_names_the_nearest_ones(shop: App) -> None:
    result = ask(shop, "category=shrits")
    assert result.matches == ()
    assert reading_texts(result.plan) == ("No category 'shrits'. Nearest: SHIRTS, Shirts.",)
    assert as_dict(result)["plan"]["unknown"] == [
        {"column": "category", "value": "shrits", "nearest": ("SHIRTS", "Shirts")}
    ]
    assert reading_texts(ask(shop, "brand=zzz").plan) == ("No brand 'zzz'.",)


def test_an_unknown_value_beside_a_known_one_is_told_too(shop: App) -> None:
    result = ask(shop, "category=shoes", "category=shose")
    assert skus(result) == ["C"]
    assert reading_texts(result.plan) == ("No category 'shose'. Nearest: Shoes.",)
