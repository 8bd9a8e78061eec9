"""The minimum similarity: it ends the answer, says so, and keeps nothing back before."""

from __future__ import annotations

import pytest

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.errors import BadInput
from app.search.filters import parse
from app.types import Query
from support.reading import Reader, ask, name, skus
from support.shop import add, numbered

QUERY = 1000


@pytest.fixture
def similarities(app: App) -> list[float]:
    """Sixty products with an index; how similar they are to the query, best first."""
    add(app, numbered(60))
    app.indexer.rebuild()
    return [match.similarity or 0.0 for match in ask(app, QUERY, k=60).matches]


def between(similarities: list[float], place: int) -> float:
    """A similarity that just so many products reach."""
    return round((similarities[place - 1] + similarities[place]) / 2, 4)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("wanted", [1, 7, 59])
def test_all_that_are_similar_enough_come_and_no_others(
    app: App, similarities: list[float], wanted: int, fold: bool
) -> None:
    least = between(similarities, wanted)
    found = ask(app, QUERY, k=60, min_similarity=least, fold=fold).matches
    assert [match.similarity for match in found] == similarities[:wanted]


def test_the_result_says_that_the_cut_off_is_why_fewer_came(
    app: App, similarities: list[float]
) -> None:
    least = between(similarities, 3)
    said = ask(app, QUERY, k=10, min_similarity=least).plan.shortfall
    assert said == f"only 3 products are at least as similar as {least:.4f}"


def test_with_a_filter_the_result_names_both(app: App, similarities: list[float]) -> None:
    farthest = ask(app, QUERY, k=60).matches[-1].product.sku
    only, least = parse([f"sku={farthest}"]), between(similarities, 3)
    said = ask(app, QUERY, min_similarity=least, filters=only).plan.shortfall
    assert said == (f"only 0 products match the filter and are at least as similar as {least:.4f}")


def test_where_the_catalogue_ends_first_the_cut_off_is_not_blamed(
    app: App, similarities: list[float]
) -> None:
    said = ask(app, QUERY, k=61, min_similarity=-1).plan.shortfall
    assert said is not None and "similar" not in said


@pytest.mark.parametrize(("least", "said"), [(0.95, "0.95"), (0.975, "0.9750")])
def test_one_product_and_its_similarity_are_told_as_they_are(
    app: App, similarities: list[float], least: float, said: str
) -> None:
    told = ask(app, 7, min_similarity=least).plan.shortfall
    assert told == f"only 1 product is at least as similar as {said}"


def test_a_full_page_is_not_short(app: App, similarities: list[float]) -> None:
    assert ask(app, QUERY, k=3, min_similarity=between(similarities, 3)).plan.shortfall is None


def test_the_page_after_the_cut_off_is_empty_and_says_why(
    app: App, similarities: list[float]
) -> None:
    least = between(similarities, 3)
    first = ask(app, QUERY, k=3, min_similarity=least)
    second = ask(app, QUERY, k=3, min_similarity=least, shown=first.shown)
    assert skus(second) == []
    assert second.plan.shortfall == f"only 0 other products are at least as similar as {least:.4f}"


def test_beyond_the_cut_off_no_further_page_is_looked_for(
    app: App, similarities: list[float]
) -> None:
    found = ask(app, QUERY, k=50, min_similarity=between(similarities, 1), fold=True)
    assert found.plan.candidates <= 60 + 16, "one look was enough"


def test_the_very_same_photo_reaches_one(app: App) -> None:
    add(app, numbered(5))
    assert skus(ask(app, 3, min_similarity=1)) == ["P0003"]


@pytest.mark.parametrize("least", [-1.01, 1.5, float("nan")])
def test_a_cut_off_that_is_no_similarity_is_refused(app: App, least: float) -> None:
    with pytest.raises(BadInput, match="between -1 and 1"):
        ask(app, QUERY, min_similarity=least)


def test_words_of_the_catalogue_alone_have_no_similarity_to_cut_at(app: App) -> None:
    add(app, numbered(1))
    with pytest.raises(BadInput, match="minimum similarity"):
        app.search.search(Query(words="title", words_by="catalogue", min_similarity=0.5))


def test_words_the_model_reads_are_cut_however_many_products_have_them(settings: Settings) -> None:
    with App(settings, choose=lambda model, **_: EncoderChoice(Reader(), "reads")) as app:
        for n in range(40):
            name(app, f"N{n:02}", f"lamp {n}", n)
        everything = app.search.search(Query(words="lamp 3", k=40))
        best = sorted((match.similarity or 0.0 for match in everything.matches), reverse=True)
        least = between(best, 2)
        found = app.search.search(Query(words="lamp 3", k=40, min_similarity=least))
    assert sorted((m.similarity or 0.0 for m in found.matches), reverse=True) == best[:2]
    assert found.plan.shortfall == f"only 2 products are at least as similar as {least:.4f}"
