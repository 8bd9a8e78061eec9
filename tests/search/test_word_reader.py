"""Words that the embedded encoder reads: after the catalogue's, and without loading it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EMBEDDED, EncoderChoice, WordReader
from app.encoders.word_space import word_space
from app.errors import NoWords
from app.models.encoder_pool import EncoderPool
from app.search.explain import reading_texts
from app.search.query_encoder import with_unknown
from app.types import Model, Query, Vectors
from app.ui.engine_texts import reading_texts as on_page
from support.shop import add
from support.text_encoder import TextEncoder, add_titled, ask, skus

ASKED = 1000


class EmbeddedWords(TextEncoder):
    """Reads "7" as photo 7, and has no idea of texts without a number."""

    def __init__(self) -> None:
        super().__init__(EMBEDDED)

    def encode_words(self, words: Sequence[str]) -> Vectors:
        known = [any(part.isdigit() for part in each.split()) for each in words]
        return super().encode_words(list(words)) * np.array(known, np.float32)[:, None]


@pytest.fixture
def shop(empty_url: str, settings: Settings) -> Iterator[App]:
    """Photo 7 without a title, and titled products with other photos."""
    settings = settings.model_copy(update={"database_url": empty_url})
    choose = lambda model, **_: EncoderChoice(EmbeddedWords(), "reads")  # noqa: E731
    with App(settings, choose=choose) as app:
        app.initialise()
        app.encoders.active()
        add(app, {"SEVEN": [7]})
        for number, title in enumerate(["lamp 7", "lamp", "mug", "mug 7 blue"]):
            add_titled(app, f"T{number}", title, 20 + number)
        add(app, {f"P{n:02}": [n] for n in range(50, 70)})
        yield app


def by_words(app: App, words: str, **more: object) -> list[str]:
    return skus(app.search.search(Query(words=words, **more)))  # type: ignore[arg-type]


def test_products_that_have_all_the_words_come_before_what_the_model_finds(shop: App) -> None:
    found = by_words(shop, "lamp 7", k=10)
    assert found[0] == "T0" and len(found) == 10
    assert "SEVEN" in found and set(found) > {"T0", "T1", "T3"}


def test_where_no_product_has_a_word_the_model_orders_those_that_have_the_others(
    shop: App,
) -> None:
    add_titled(shop, "LATER", "lamp", 8)
    with_8 = by_words(shop, "lamp 8", k=3)
    assert with_8[0] == "LATER" and set(with_8) == {"LATER", "T0", "T1"}


def test_words_that_no_product_has_are_answered_by_the_model(shop: App) -> None:
    result = shop.search.search(Query(words="photo 7", k=3))
    assert "SEVEN" in skus(result)
    assert result.plan.words == "model and catalogue"
    assert any(told.startswith("Read by the model alone") for told in reading_texts(result.plan))


def test_words_that_the_model_does_not_know_either_are_told_apart(
    shop: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = Model(1, EMBEDDED, "2-x", word_space("2").dim, "")
    told = lambda reading, words, model: with_unknown(reading, words, newest)  # noqa: E731
    monkeypatch.setattr("app.search.service.with_unknown", told)
    plan = shop.search.search(Query(words="sandal xyzzyqq 7", k=3)).plan
    assert plan.reading is not None and plan.reading.unknown == ("xyzzyqq",)
    sentences = reading_texts(plan)
    assert "Not understood, and ignored: 'xyzzyqq'." in sentences
    [read] = [each for each in sentences if each.startswith("Read by the model alone")]
    assert "sandal" in read and "xyzzyqq" not in read
    assert [each for each in on_page(plan) if "xyzzyqq" in each] == [
        "Not understood, and ignored: “xyzzyqq”."
    ]


def test_of_words_that_the_model_has_no_idea_of_the_catalogue_answers_alone(shop: App) -> None:
    result = shop.search.search(Query(words="lamp", k=10))
    assert sorted(skus(result)) == ["T0", "T1"] and result.plan.words == "catalogue"
    for query in (Query(words="lamp", words_by="model"), Query(sku="T0", without_words="lamp")):
        with pytest.raises(NoWords, match="no idea of 'lamp'"):
            shop.search.search(query)


def test_beside_a_photo_words_that_the_catalogue_has_are_left_to_it(shop: App) -> None:
    alone = {m.product.sku: m.similarity for m in ask(shop, ASKED, k=30).matches}
    found = skus(ask(shop, ASKED, words="7", k=30))
    having = sorted(("T0", "T3"), key=lambda sku: -(alone[sku] or 0))
    assert found[:2] == having
    assert found[2:] == [sku for sku in alone if sku not in having]


def test_beside_a_photo_words_that_no_product_has_are_read_by_the_model(shop: App) -> None:
    add(shop, {"EIGHT": [8]})
    without = skus(ask(shop, ASKED, k=30))
    found = skus(ask(shop, ASKED, words="8", words_weight=1.0, k=30))
    assert found.index("EIGHT") < without.index("EIGHT") or found[0] == "EIGHT"


def test_words_alone_load_no_encoder_where_a_text_side_reads_them(
    shop: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = EmbeddedWords()
    reader = WordReader(shop.encoders.active().fingerprint, reads.encode_words)
    monkeypatch.setattr(EncoderPool, "word_reader", lambda self, model_id: reader)
    monkeypatch.setattr(EncoderPool, "active", lambda self: pytest.fail("an encoder is loaded"))
    assert "SEVEN" in by_words(shop, "photo 7", k=3)
    assert by_words(shop, "7", words_by="model", k=1) == ["SEVEN"]
    assert len(skus(shop.search.search(Query(sku="T2", without_words="7", k=5)))) == 5
