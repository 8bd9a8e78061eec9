"""The language of a page, and what of the engine is shown in it."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from app.errors import BadInput
from app.ui import languages, translation
from app.ui.engine_texts import engine_text
from app.ui.formatting import format_decimal
from app.ui.page_files import document


def test_a_language_comes_from_the_address_a_choice_the_setting_or_the_browser() -> None:
    choose = languages.page_language
    assert choose("fr, de-AT;q=0.8, en;q=0.5", {}, {}, "auto") == "de"
    assert choose("en-US,de;q=0.9", {}, {}, "auto") == "en"
    assert choose("xx;q=many", {}, {}, "auto") == "en"
    assert choose("fr, de ; q=0.8,en;Q=0.5", {}, {}, "auto") == "de"
    assert choose("de;q=0, *", {}, {}, "auto") == "en"
    assert choose("en", {}, {}, "de") == "de"
    assert choose("de", {}, {languages.COOKIE: "en"}, "de") == "en"
    assert choose("de", {"lang": "en"}, {languages.COOKIE: "de"}, "de") == "en"
    assert choose("de", {"lang": "../x"}, {languages.COOKIE: "?"}, "auto") == "de"
    with pytest.raises(BadInput, match="give auto or one of en, de"):
        languages.check_language("klingon")


def test_the_language_of_an_address_is_kept_for_pages_without_it() -> None:
    def script() -> None:
        from app.ui.components import language_choice

        language_choice.draw()

    def kept(**address: str) -> tuple[str, bool]:
        page = AppTest.from_function(script, default_timeout=300)
        page.query_params.update(address)
        state = page.run().session_state
        return state[translation.LANGUAGE], translation.CHOSEN in state

    assert (kept(lang="de"), kept(), kept(lang="xx")) == (
        ("de", True),
        ("en", False),
        ("en", False),
    )


@pytest.mark.parametrize("number", [",", "9" * 400])
def test_a_sku_that_reads_like_another_sentence_is_shown(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ui.engine_texts.language", lambda: "de")
    monkeypatch.setattr("app.ui.translation.language", lambda: "de")
    sentence = "took longer than {} seconds; try again, or download the picture and upload its file"
    sku = sentence.format(number)
    assert engine_text(f"No product has the sku {sku}.") == f"Kein Produkt hat die SKU {sku}."


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("build 7: The index file is missing or cannot be read.",
         "Build 7: Die Indexdatei fehlt oder kann nicht gelesen werden."),
        ("no index has been built yet; pgvector's index found too few pictures",
         "es wurde noch kein Index gebaut; der Index von pgvector fand zu wenige Bilder"),
        ("build 7 with 0 embeddings changed since; parts 1, 2 and 4 of 5 did not answer in time; "
         "their pictures were compared in PostgreSQL",
         "Build 7, 0 Embeddings seither geändert; die Teile 1, 2 und 4 von 5 antworteten nicht "
         "rechtzeitig; ihre Bilder wurden in PostgreSQL verglichen"),
        ("build 7 with 0 embeddings changed since; the words rank the 1,000 products nearest to "
         "the photo, 12 of which have any of them in the catalogue",
         "Build 7, 0 Embeddings seither geändert; die Wörter ordnen die 1.000 Produkte, die dem "
         "Foto am nächsten sind; 12 davon haben eines von ihnen im Katalog"),
        ("build 7 with 0 embeddings changed since; the colours of 0 of 1,060 pictures rank them, "
         "and the whole text's vector the other 1,060",
         "Build 7, 0 Embeddings seither geändert; die Farben von 0 der 1.060 Bilder ordnen sie, "
         "die anderen 1.060 ordnet der Vektor des ganzen Textes"),
        ("recall@10 is 0.981, below 0.99", "Recall@10 ist 0,981, unter 0,99"),
        ("Meanwhile it was decided: A is the same as B (by Ada).",
         "Inzwischen wurde entschieden: A ist dasselbe wie B (von Ada)."),
        ("A and B cannot be different, because of earlier verdicts: A is the same as C (by Ada); "
         "C is the same as B (by Bo). Change one of those first.",
         "A und B können nicht verschieden sein, wegen früherer Urteile: A ist dasselbe wie C (von "
         "Ada); C ist dasselbe wie B (von Bo). Ändern Sie zuerst eines davon."),
    ],
)  # fmt: skip
def test_what_stands_in_a_sentence_of_the_engine_is_translated_too(
    english: str, german: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ui.engine_texts.language", lambda: "de")
    monkeypatch.setattr("app.ui.translation.language", lambda: "de")
    monkeypatch.setattr("app.ui.formatting.locale", lambda: "de")
    assert engine_text(english) == german


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    written = [format_decimal(number, 2) for number in (-0.004, -0.0, 0.004, -0.005001)]
    assert written == ["0.00", "0.00", "0.00", "-0.01"]


def test_the_document_has_the_language_and_its_messages() -> None:
    text = document('<html lang="en"><head></head><body></body></html>', (), "de").decode()
    assert '<html lang="de">' in text and "Schlie\\u00dfen" in text and "TEXTS" not in text
