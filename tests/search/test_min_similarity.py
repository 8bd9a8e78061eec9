"""The minimum similarity ends the result, is named as the reason, and drops nothing above it."""

from __future__ import annotations

import pytest

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.errors import BadInput
from app.search.filters import parse
from app.types import Query
from support.copies import copied_for
from support.shop import add, numbered
from support.text_encoder import TextEncoder, add_titled, ask, skus

QUERY = 1000


def fill(app: App) -> None:
    """Sixty products with an index."""
    add(app, numbered(60))
    app.indexer.rebuild()


database_url = copied_for("similarities", fill)


@pytest.fixture
def similarities(app: App) -> list[float]:
    """How similar these products are to the query, best first."""
    return [match.similarity or 0.0 for match in ask(app, QUERY, k=60).matches]


def between(similarities: list[float], place: int) -> float:
    """A similarity that exactly this many products reach."""
    return round((similarities[place - 1] + similarities[place]) / 2, 4)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("wanted", [1, 7, 59])
def test_exactly_the_products_above_the_minimum_are_returned(
    app: App, similarities: list[float], wanted: int, fold: bool
) -> None:
    least = between(similarities, wanted)
    found = ask(app, QUERY, k=60, min_similarity=least, fold=fold).matches
    assert [match.similarity for match in found] == similarities[:wanted]


def test_the_shortfall_names_the_minimum_similarity(app: App, similarities: list[float]) -> None:
    least = between(similarities, 3)
    said = ask(app, QUERY, k=10, min_similarity=least).plan.shortfall
    assert said == (f"Only 3 of 60 products are at least as similar to the query as {least:.4f}.")


def test_with_a_filter_the_result_names_both(app: App, similarities: list[float]) -> None:
    farthest = ask(app, QUERY, k=60).matches[-1].product.sku
    only, least = parse([f"sku={farthest}"]), between(similarities, 3)
    said = ask(app, QUERY, min_similarity=least, filters=only).plan.shortfall
    assert said == (
        "1 product matches these filters; none of them is at least as similar to the query as"
        f" {least:.4f}."
    )


def test_the_minimum_is_not_named_if_the_catalogue_ends_first(
    app: App, similarities: list[float]
) -> None:
    said = ask(app, QUERY, k=61, min_similarity=-1).plan.shortfall
    assert said is not None and "similar" not in said


@pytest.mark.parametrize(("least", "said"), [(0.95, "0.95"), (0.975, "0.9750")])
def test_the_shortfall_uses_the_singular_and_the_exact_minimum(
    app: App, similarities: list[float], least: float, said: str
) -> None:
    told = ask(app, 7, min_similarity=least).plan.shortfall
    assert told == f"Only 1 of 60 products is at least as similar to the query as {said}."


def test_a_full_page_is_not_short(app: App, similarities: list[float]) -> None:
    assert ask(app, QUERY, k=3, min_similarity=between(similarities, 3)).plan.shortfall is None


def test_the_page_after_the_minimum_is_empty_with_the_reason(
    app: App, similarities: list[float]
) -> None:
    least = between(similarities, 3)
    first = ask(app, QUERY, k=3, min_similarity=least)
    second = ask(app, QUERY, k=3, min_similarity=least, shown=first.shown)
    assert skus(second) == []
    assert second.plan.shortfall == (
        f"Only 3 of 60 products are at least as similar to the query as {least:.4f}; of these, 3"
        " were shown before or asked with."
    )


def test_nothing_is_retrieved_beyond_the_minimum(app: App, similarities: list[float]) -> None:
    found = ask(app, QUERY, k=50, min_similarity=between(similarities, 1), fold=True)
    assert found.plan.candidates <= 60 + 16, "one look was enough"


def test_the_same_photo_has_similarity_one(app: App) -> None:
    add(app, numbered(5))
    assert skus(ask(app, 3, min_similarity=1)) == ["P0003"]


@pytest.mark.parametrize("least", [-1.01, 1.5, float("nan")])
def test_a_minimum_out_of_range_is_refused(app: App, least: float) -> None:
    with pytest.raises(BadInput, match="between -1 and 1"):
        ask(app, QUERY, min_similarity=least)


def test_a_minimum_for_catalogue_words_alone_is_refused(app: App) -> None:
    add(app, numbered(1))
    with pytest.raises(BadInput, match="minimum similarity"):
        app.search.search(Query(words="title", words_by="catalogue", min_similarity=0.5))


def test_a_minimum_applies_to_words_that_the_model_reads(settings: Settings) -> None:
    with App(settings, choose=lambda model, **_: EncoderChoice(TextEncoder(), "reads")) as app:
        for n in range(40):
            add_titled(app, f"N{n:02}", f"lamp {n}", n)
        everything = app.search.search(Query(words="lamp 3", k=40))
        best = sorted((match.similarity or 0.0 for match in everything.matches), reverse=True)
        least = between(best, 2)
        found = app.search.search(Query(words="lamp 3", k=40, min_similarity=least))
    assert sorted((m.similarity or 0.0 for m in found.matches), reverse=True) == best[:2]
    assert found.plan.shortfall == (
        f"Only 2 of 40 products are at least as similar to the query as {least:.4f}."
    )
