"""Words that name colours rank by the colours of the pixels, wherever the pictures are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.queries import picture_colours
from app.encoders import colour_words
from app.encoders.base import EMBEDDED, EncoderChoice, WordReader
from app.images.basic_colours import NAMES, VERSION
from app.search import colour_ranking, page_hits, query_encoder
from app.types import Colours, Filters, Hit, Query, Vectors
from support.exact import skus
from support.shop import add
from support.text_encoder import TextEncoder


class EmbeddedWords(TextEncoder):
    """Reads "40" as photo 40, and navy as photo 25, whatever stands beside it."""

    def __init__(self) -> None:
        super().__init__(EMBEDDED)

    def encode_words(self, words: list[str]) -> Vectors:
        return super().encode_words(["25" if "navy" in text else text for text in words])


RED, NAVY, WHITE = (NAMES.index(name) for name in ("red", "navy", "white"))
SKUS = [f"P{n:02}" for n in range(60)]
SHOWN = {"P07": RED, "P31": RED, "P52": NAVY}
"""The main colours of some products; all others are white."""


def shares(main: int) -> Colours:
    return Colours(bytes(230 if n == main else 1 for n in range(len(NAMES))), VERSION)


TITLED = "P03"
"""Navy by its words only: its picture is white."""

PICTURES = """
SELECT p.sku, pp.picture_id FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id"""


def store_colours(app: App) -> None:
    with app.engine.begin() as connection:
        colours = {
            row.picture_id: shares(SHOWN.get(row.sku, WHITE))
            for row in connection.exec_driver_sql(PICTURES)
        }
        picture_colours.store(connection, colours)


@contextmanager
def changed(app: App, sql: str) -> Iterator[None]:
    """The colours changed by a statement, and as they were afterwards."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql(sql)
    try:
        yield
    finally:
        store_colours(app)


def fill(app: App) -> None:
    add(app, {sku: [n] for n, sku in enumerate(SKUS)}, category="Thing")
    add(app, {TITLED: [SKUS.index(TITLED)]}, colour="Navy")
    store_colours(app)
    with app.engine.begin() as connection:
        values = {"name": EMBEDDED, "fingerprint": EmbeddedWords().fingerprint}
        update = "UPDATE model SET name = %(name)s, fingerprint = %(fingerprint)s"
        connection.exec_driver_sql(update, values)
    app.indexer.rebuild()


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    shared_filled_database: Callable[[Callable[[App], object]], str],
) -> Iterator[App]:
    home = tmp_path_factory.mktemp("shop")
    made = Settings(home=home, database_url=shared_filled_database(fill))
    with App(made, choose=lambda model, **_: EncoderChoice(EmbeddedWords(), "reads")) as app:
        app.encoders.active()
        yield app


def ask(app: App, words: str, **more: object) -> list[str]:
    return skus(app.search.search(Query(words=words, **more)))  # type: ignore[arg-type]


def test_products_of_a_colour_come_first_and_the_others_follow(shop: App) -> None:
    result = shop.search.search(Query(words="40 red", words_by="model", k=60))
    found = skus(result)
    assert set(found[:3]) >= {"P07", "P31"} and sorted(found) == SKUS
    assert "the colours of 60 of 60 pictures rank them" in result.plan.reason
    plain = shop.search.search(Query(words="40", words_by="model", k=60)).plan
    assert "colours" not in plain.reason


def test_words_of_no_product_are_ranked_so_too_and_minus_a_colour_is_last(shop: App) -> None:
    assert set(ask(shop, "40 red", k=3)) >= {"P07", "P31"}
    assert set(ask(shop, "40 dress -red", words_by="model", k=60)[-2:]) == {"P07", "P31"}
    without = skus(shop.search.search(Query(sku="P40", without_words="40 red", k=59)))
    assert set(without[-2:]) == {"P07", "P31"}


def test_the_colour_is_found_wherever_it_is(shop: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the pool of the nearest, under filters and excluded products too."""
    monkeypatch.setattr(colour_ranking, "POOL_PRODUCTS", 5)
    assert set(ask(shop, "40 red", words_by="model", k=3)) >= {"P07", "P31"}
    filters = Filters(columns={"sku": ("P07", "P40", "P41")})
    assert ask(shop, "40 red", words_by="model", k=5, filters=filters)[0] == "P07"
    shown = ask(shop, "40 red", words_by="model", k=3, shown=("P07",))
    assert "P07" not in shown and "P31" in shown


def test_pages_neither_repeat_nor_omit(shop: App) -> None:
    whole = ask(shop, "40 red", words_by="model", k=12)
    paged: list[str] = []
    for _ in range(4):
        paged += ask(shop, "40 red", words_by="model", k=3, shown=tuple(paged))
    assert paged == whole


def test_words_beside_a_photo_rank_by_the_colour(shop: App) -> None:
    found = ask(shop, "40 red", sku="P20", words_weight=1.0, k=3)
    assert set(found) >= {"P07", "P31"}


MISSING = "DELETE FROM picture_colours"
OLDER = f"UPDATE picture_colours SET version = {VERSION - 1}"


@pytest.mark.parametrize("sql", [MISSING, OLDER])
def test_pictures_without_colours_are_ranked_by_the_whole_text(
    shop: App, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    """As by a text that is read as the whole and names no colour, also beyond those near the
    others of its words, and beside a photo."""
    assert ask(shop, "40 navy", words_by="model", k=5)[0] == "P52"
    with changed(shop, sql):
        result = shop.search.search(Query(words="40 navy", words_by="model", k=60))
        assert skus(result) == ask(shop, "25", words_by="model", k=60)
        told = "the colours of 0 of 60 pictures rank them, and the whole text's vector the other 60"
        assert told in result.plan.reason
        photo = {"sku": "P20", "words_by": "model", "words_weight": 0.8, "k": 59}
        assert ask(shop, "40 navy", **photo) == ask(shop, "25", **photo)
        monkeypatch.setattr(colour_ranking, "POOL_PRODUCTS", 5)
        nearest = ask(shop, "25", words_by="model", k=5)
        assert ask(shop, "40 navy", words_by="model", k=5) == nearest


def test_of_pictures_with_and_without_colours_each_is_ranked_by_what_is_known(shop: App) -> None:
    """P25 is like the whole text, and white."""
    assert "P25" not in ask(shop, "40 navy", words_by="model", k=5)
    of = "(SELECT picture_id FROM product_picture AS pp JOIN product AS p ON p.id = product_id"
    with changed(shop, f"{MISSING} WHERE picture_id IN {of} WHERE sku = 'P25')"):
        assert set(ask(shop, "40 navy", words_by="model", k=3)) >= {"P25", "P52"}


def test_what_follows_the_catalogues_own_words_is_ranked_by_the_colour_too(shop: App) -> None:
    assert ask(shop, "navy", k=2) == [TITLED, "P52"]


def test_all_products_come_back_and_pictures_without_colours_are_in_between(shop: App) -> None:
    hits = [Hit(n, n, 0.5) for n in range(3)]
    known = {0: np.eye(18, dtype=np.float32)[RED], 2: np.eye(18, dtype=np.float32)[NAVY]}
    ranked = colour_ranking.ranked(hits, colour_words.rows(["red"], []), known, {})
    assert [hit.product_id for hit, _ in ranked] == [0, 1, 2]
    ranked = colour_ranking.ranked(hits, colour_words.rows([], ["red"]), known, {})
    assert [hit.product_id for hit, _ in ranked] == [2, 1, 0]
    assert colour_ranking.ranked([], colour_words.rows(["red"], []), {}, {}) == []
    none = colour_ranking.ranked(hits, colour_words.rows(["red"], []), {}, {})
    assert [hit.product_id for hit, _ in none] == [0, 1, 2]


def test_two_colours_rank_those_that_show_both_first() -> None:
    eye = np.eye(18, dtype=np.float32)
    known = {0: eye[RED], 1: (eye[RED] + eye[NAVY]) / 2, 2: eye[NAVY], 3: eye[WHITE]}
    hits = [Hit(n, n, 0.5) for n in range(4)]
    ranked = colour_ranking.ranked(hits, colour_words.rows(["red", "navy"], []), known, {})
    assert [hit.product_id for hit, _ in ranked] == [1, 0, 2, 3]


def test_a_model_whose_words_are_its_own_ranks_by_its_vectors_alone() -> None:
    """Only the words of the embedded encoder are those whose colours are told by pixels."""
    reader = WordReader("f", EmbeddedWords().encode_words)
    asked = Query(words="40 red", without_words="40 navy")
    assert query_encoder._read(asked, reader, names_colours=False).colours is None
    colours = query_encoder._read(asked, reader).colours
    assert colours is not None and colours.sum(1).tolist() == [-1, 1]
    assert query_encoder._read(Query(words="40 dress"), reader).colours is None


@pytest.mark.parametrize("words_by", [None, "model"])
def test_less_similar_products_of_a_colour_push_out_none_that_reach_the_minimum(
    shop: App, monkeypatch: pytest.MonkeyPatch, words_by: str | None
) -> None:
    monkeypatch.setattr(page_hits, "MIN_FUSED", 1)
    monkeypatch.setattr(page_hits, "FUSION_FACTOR", 1)
    query = Query(words="40 red", words_by=words_by, k=60)  # type: ignore[arg-type]
    every = shop.search.search(query).matches
    minimum = sorted(match.similarity for match in every)[-5]
    reaching = [match.product.sku for match in every if match.similarity >= minimum]
    assert len(reaching) == 5 and not {"P07", "P31"} & set(reaching)
    for k in (1, 2, 5, 20):
        found = shop.search.search(replace(query, k=k, min_similarity=minimum))
        assert skus(found) == reaching[:k]
