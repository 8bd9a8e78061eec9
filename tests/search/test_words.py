"""Words of a query: stems, spelling, synonyms, skus, the order of products, and what is told."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bootstrap import App
from app.cli.search_output import as_dict
from app.config import Settings
from app.db.queries import full_text, vocabulary
from app.encoders.base import EncoderChoice
from app.errors import LookalikeError, ModelUnavailable
from app.search.explain import reading_texts
from app.types import Correction, Product, Query, SearchResult, SynonymUsed
from support.colours import choose_colours, photo
from support.exact import skus
from support.shop import add, add_products

SHOP = (
    Product("RED-RUN", "Swift running shoes", "Swift", "Shoes", "red"),
    Product("RED-SHOE", "Amble shoes", "Amble", "Shoes", "red"),
    Product("TAPE", "Red Tape Men Brown Shoes", "Red Tape", "Shoes", "brown"),
    Product("SHIRT", "Amble shirt", "Amble", "Shirts", "grey"),
    Product("TEE", "Amble T-Shirt", "Amble", "T-Shirt", "white"),
    Product("DRESS", "Évasé dress", "O'Leary", "Dress", "black"),
    Product("0", "Nameless thing", None, "Thing", None),
    Product("00042-A", "Numbered thing", category="Thing", attributes={"GTIN": "04006381333931"}),
    Product("PANTS", "Amble pants", "Amble", "Pants", "navy"),
    Product("LONG", "Amble longsleeve", "Amble", "Longsleeve", "brown"),
)  # fmt: skip


def fill(app: App) -> None:
    add_products(app, [(product, [n]) for n, product in enumerate(SHOP)])


@pytest.fixture(scope="module")
def shop(
    server_home: Any, tmp_path_factory: pytest.TempPathFactory,
    shared_filled_database: Callable[[Callable[[App], object]], str],
) -> Iterator[App]:  # fmt: skip
    folder = tmp_path_factory.mktemp("shop")
    made = Settings(home=folder, database_url=shared_filled_database(fill))
    with App(made, choose=choose_colours) as app:
        yield app


def ask(app: App, words: str, **more: Any) -> SearchResult:
    return app.search.search(Query(words=words, words_by="catalogue", **more))


def first(app: App, words: str) -> str:
    return skus(ask(app, words))[0]


@pytest.mark.parametrize("words", ["shoe", "shoes", "SHOES", "shoe's"])
def test_singular_and_plural_find_the_same_products(shop: App, words: str) -> None:
    assert set(skus(ask(shop, words))) == {"RED-RUN", "RED-SHOE", "TAPE"}


def test_a_colour_in_the_name_of_a_brand_is_not_the_colour(shop: App) -> None:
    assert skus(ask(shop, "red running shoes")) == ["RED-RUN", "RED-SHOE", "TAPE"]
    assert skus(ask(shop, "red shoes"))[-1] == "TAPE"


def test_the_whole_name_of_a_brand_is_the_brand(shop: App) -> None:
    assert first(shop, "red tape shoes") == "TAPE"


def test_products_with_all_words_come_before_those_with_the_rarer_word(shop: App) -> None:
    assert skus(ask(shop, "amble dress"))[0] == "DRESS", "none has both: the rarer word"
    assert first(shop, "amble shoes") == "RED-SHOE"


def test_the_last_word_may_be_unfinished(shop: App) -> None:
    assert set(skus(ask(shop, "run"))) == {"RED-RUN"}
    assert first(shop, "amble dr") == "DRESS"
    assert skus(ask(shop, "dre ")) == [], "a space ends the word, which is too short to correct"


@pytest.mark.parametrize(
    ("words", "sku"),
    [
        ("0", "0"), ("000", "0"), ("00042-A", "00042-A"), ("42a", "00042-A"), ("42 a", "00042-A"),
        ("0042.A", "00042-A"), ("4006381333931", "00042-A"), ("04006381333931", "00042-A"),
        ("400-6381-333931", "00042-A"), ("red-run", "RED-RUN"), ("thing 00042-A", "00042-A"),
    ],
)  # fmt: skip
def test_a_sku_or_gtin_typed_as_words_finds_its_product_first(
    shop: App, words: str, sku: str
) -> None:
    result = ask(shop, words)
    assert skus(result)[0] == sku
    assert result.plan.reading is not None and not result.plan.reading.ignored


@pytest.mark.parametrize(
    ("words", "typed", "read_as", "sku"),
    [
        ("shrits", "shrits", "shirt", "SHIRT"), ("red shose", "shose", "shoe", "RED-SHOE"),
        ("runing shoes", "runing", "running", "RED-RUN"), ("pnats", "pnats", "pants", "PANTS"),
        ("hsirts", "hsirts", "shirts", "SHIRT"), ("trowsers", "trowsers", "trousers", "PANTS"),
    ],
)  # fmt: skip
def test_a_misspelt_word_is_corrected_and_told(
    shop: App, words: str, typed: str, read_as: str, sku: str
) -> None:
    result = ask(shop, words)
    assert skus(result)[0] == sku
    assert result.plan.reading is not None
    [correction] = result.plan.reading.corrected
    assert correction.typed == typed
    assert correction.read_as[:4] == read_as[:4]
    told = f"No product has the word '{typed}'; searched for '{correction.read_as}'."
    assert told in reading_texts(result.plan)
    assert as_dict(result)["plan"]["corrected"] == [{"from": typed, "to": correction.read_as}]


def test_a_word_like_no_other_is_ignored_and_told(shop: App) -> None:
    result = ask(shop, "qqqqqqq shirt for 77")
    assert skus(result)[0] == "SHIRT"
    assert as_dict(result)["plan"]["ignored"] == ["qqqqqqq", "for", "77"]
    assert "'qqqqqqq', 'for', '77'" in " ".join(reading_texts(result.plan))
    assert skus(ask(shop, "qqqqqqq")) == []


def test_synonyms_of_colour_and_kind_are_searched_and_told(shop: App) -> None:
    result = ask(shop, "gray tee trousers")
    assert set(skus(result)) == {"SHIRT", "TEE", "PANTS"}
    assert result.plan.reading is not None
    assert set(result.plan.reading.synonyms) == {
        SynonymUsed("gray", "grey"), SynonymUsed("tee", "tshirt"), SynonymUsed("trousers", "pants"),
    }  # fmt: skip
    assert any("'grey' instead of 'gray'" in told for told in reading_texts(result.plan))


@pytest.mark.parametrize(
    ("german", "english"),
    [("rote Schuhe", "red shoe"), ("Hemd", "shirt"), ("schwarzes Sommerkleid", "black dress"),
     ("Schuh -braun", "shoe -brown"), ("Schuhe nicht braun", "shoe -brown")],
)  # fmt: skip
def test_german_words_find_what_the_english_ones_find_and_are_told(
    shop: App, german: str, english: str
) -> None:
    result = ask(shop, german)
    assert skus(result) == skus(ask(shop, english)) != []
    reading = result.plan.reading
    assert reading is not None and not (reading.corrected or reading.ignored)
    assert {each.means for each in reading.synonyms} | set(reading.excluded) >= {
        each.strip("-") for each in english.split()
    }


@pytest.mark.parametrize("words", ["shoes not brown", "shoes without brown", "shoes ohne braun"])
def test_words_that_are_negated_are_left_out_and_told(shop: App, words: str) -> None:
    result = ask(shop, words)
    assert set(skus(result)) == {"RED-RUN", "RED-SHOE"}
    assert any(told.startswith("Left out: products with") for told in reading_texts(result.plan))
    assert "brown" in as_dict(result)["plan"]["excluded"] or "braun" in words
    assert as_dict(ask(shop, "shoes"))["plan"]["excluded"] == []


@pytest.mark.parametrize(
    ("words", "sku"),
    [("t-shirt", "TEE"), ("tshirt", "TEE"), ("t shirts", "TEE"), ("shirt", "SHIRT"),
     ("oleary dress", "DRESS"), ("o'leary", "DRESS"), ("O\u2019Leary", "DRESS"), ("evase", "DRESS"),
     ("long sleeve", "LONG"), ("dark blue pants", "PANTS")],
)  # fmt: skip
def test_words_written_as_one_or_as_several_find_the_same(shop: App, words: str, sku: str) -> None:
    assert first(shop, words) == sku


def test_the_words_of_a_change_are_searched_at_once(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1], "B": [2]}, category="Kettle", brand="Redd")
    assert set(skus(ask(app, "kettles"))) == {"A", "B"}
    sql.execute("UPDATE product SET category = 'Teapot' WHERE sku = 'A'")
    sql.execute("UPDATE product SET sku = 'C-9' WHERE sku = 'A'")
    assert skus(ask(app, "kettles")) == ["B"]
    assert skus(ask(app, "teapot")) == skus(ask(app, "c9")) == ["C-9"]
    sql.execute("DELETE FROM product WHERE sku = 'B'")
    assert skus(ask(app, "kettle")) == []
    assert sql.execute("SELECT count(*) FROM vocabulary WHERE word = 'kettle'").fetchone() == (0,)
    sql.execute("TRUNCATE product CASCADE")
    assert sql.execute("SELECT count(*) FROM vocabulary").fetchone() == (0,)


COUNTED = """
SELECT word, sum(products)::bigint, sum(kinds)::bigint, sum(brands)::bigint
FROM vocabulary GROUP BY word HAVING sum(products) <> 0 ORDER BY word"""
RECOUNTED = """
SELECT lexeme COLLATE "C" AS word, count(*), count(*) FILTER (WHERE weights && '{B,C}'),
    count(*) FILTER (WHERE weights && '{D}')
FROM product AS p, unnest(weighted_words('simple', title, brand, category, colour))
GROUP BY 1 ORDER BY 1"""

WORDS = st.sampled_from(["red", "Red Tape", "shirt", "T-Shirt", "", "kind of blue", "Évasé"])


@settings(max_examples=15, deadline=None)
@given(
    writes=st.lists(
        st.tuples(st.sampled_from("ABCD"), st.booleans(), WORDS, WORDS, WORDS), max_size=12
    )
)
def test_the_vocabulary_counts_what_products_have_after_any_writes(
    writing: psycopg.Connection, writes: list[tuple[str, bool, str, str, str]]
) -> None:
    for sku, delete, title, brand, category in writes:
        if delete:
            writing.execute("DELETE FROM product WHERE sku = %s", [sku])
        else:
            writing.execute(
                "INSERT INTO product (sku, title, brand, category) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (sku) DO UPDATE SET (title, brand, category) ="
                " (excluded.title, excluded.brand, excluded.category)",
                [sku, title, brand, category],
            )
        counted = writing.execute(COUNTED).fetchall()
        assert counted == writing.execute(RECOUNTED).fetchall()


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_open_transactions_that_write_the_same_words_do_not_wait_for_each_other(
    app: App, sql: psycopg.Connection, database_url: str, isolation: str
) -> None:
    add(app, {"A": [1], "B": [2], "C": [3]}, category="Kettle")
    level = isolation.replace(" ", r"\ ")
    options = f"-c lock_timeout=5s -c default_transaction_isolation={level}"
    with (
        psycopg.connect(database_url, options=options) as one,
        psycopg.connect(database_url, options=options) as other,
        psycopg.connect(database_url, options=options) as undone,
    ):
        one.execute("UPDATE product SET category = 'Teapot' WHERE sku = 'A'")
        other.execute("INSERT INTO product (sku, category) VALUES ('D', 'Kettle')")
        undone.execute("DELETE FROM product WHERE sku = 'B'")
        other.execute("UPDATE product SET category = 'Teapot' WHERE sku = 'D'")
        one.commit()
        undone.rollback()
        other.commit()
    assert sql.execute(COUNTED).fetchall() == sql.execute(RECOUNTED).fetchall()
    sql.execute("INSERT INTO product (sku, category) VALUES ('E', 'Kettle'), ('F', 'Teapot')")
    assert sql.execute(COUNTED).fetchall() == sql.execute(RECOUNTED).fetchall()
    rows = "SELECT count(*) FROM vocabulary WHERE word IN ('kettle', 'teapot')"
    assert sql.execute(rows).fetchone() == (2,), "a later write merges what they left"


@pytest.fixture(scope="module")
def writing(
    shared_filled_database: Callable[[Callable[[App], object]], str],
) -> Iterator[psycopg.Connection]:
    with psycopg.connect(shared_filled_database(fill), autocommit=True) as connection:
        connection.execute("DELETE FROM product")
        yield connection


@settings(max_examples=60, deadline=None)
@given(words=st.text(max_size=60))
def test_any_text_can_be_searched(shop: App, words: str) -> None:
    words = words.replace("\0", "").encode("utf-8", "ignore").decode()
    if words.strip():
        ask(shop, words)


ALPHANUMERIC = st.text("abcXYZ0123456789", min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(ALPHANUMERIC, min_size=1, max_size=4),
    written=st.sampled_from(["-", " ", ".", "/", "_", ""]),
    typed=st.sampled_from(["-", " ", ".", "/", "_", ""]),
    zeros=st.integers(0, 3),
    upper=st.booleans(),
)
def test_a_code_is_the_same_without_case_punctuation_and_leading_zeros(
    writing: psycopg.Connection, parts: list[str], written: str, typed: str, zeros: int, upper: bool
) -> None:
    one, other = written.join(parts), "0" * zeros + typed.join(parts)
    codes = writing.execute(
        "SELECT product_code(%s), product_code(%s)", [one, other.upper() if upper else other]
    ).fetchone()
    assert codes is not None and codes[0] == codes[1] and codes[0]


def test_products_beyond_the_ranked_ones_come_where_these_do_not_fill_the_page(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, {f"P{n}": [n] for n in range(12)}, category="Kettle")
    monkeypatch.setattr(full_text, "MAX_RANKED", 3)
    assert len(skus(ask(app, "kettle", k=10))) == 10
    monkeypatch.setattr("app.search.page_hits.MIN_FUSED", 1)
    monkeypatch.setattr("app.search.page_hits.FUSION_FACTOR", 1)
    assert len(skus(ask(app, "kettle", k=3))) == 3


def test_a_correction_is_a_word_of_the_current_catalogue(app: App) -> None:
    add(app, {"A": [1]}, category="Kettle")
    reading = ask(app, "ketle").plan.reading
    assert reading is not None and reading.corrected == (Correction("ketle", "kettle"),)
    add(app, {"B": [2]}, category="2pack")
    reading = ask(app, "spack").plan.reading
    assert reading is not None and reading.corrected == (Correction("spack", "2pack"),)
    app.catalog.delete(["A", "B"])
    reading = ask(app, "ketle").plan.reading
    assert reading is not None and (reading.corrected, reading.ignored) == ((), ("ketle",))


TRIGRAM_SERVER = os.environ.get("LOOKALIKE_TEST_TRIGRAM_URL")
"""URL of the database `postgres` of a server that has pg_trgm; the embedded one has none."""


@pytest.mark.skipif(not TRIGRAM_SERVER, reason="LOOKALIKE_TEST_TRIGRAM_URL names no server")
def test_pg_trgm_finds_the_words_with_another_first_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TRIGRAM_SERVER
    with psycopg.connect(TRIGRAM_SERVER, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS trigrams")
        admin.execute("CREATE DATABASE trigrams")
    url = re.sub(r"/postgres(?=\?|$)", "/trigrams", TRIGRAM_SERVER)
    made = Settings(home=tmp_path, database_url=url)
    with App(made, choose=choose_colours) as app:
        app.initialise()
        fill(app)
        without = {words: ask(app, words).plan.reading for words in ("hsirts", "rhoes", "kress")}
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_trgm")
        monkeypatch.setattr(vocabulary, "ANY_FIRST_LETTER", "not used")
        for words, reading in without.items():
            assert ask(app, words).plan.reading == reading
            assert reading is not None and reading.corrected


def test_words_of_the_catalogue_need_no_encoder_that_reads_none(
    app: App, settings: Settings, sql: psycopg.Connection
) -> None:
    add(app, {"A": [1], "B": [2]})
    sql.execute("UPDATE model SET name = 'embedded'")

    def refuse(*_: object, **__: object) -> EncoderChoice:
        raise ModelUnavailable("it is loaded")

    unset = settings.model_copy(update={"model": "auto"})
    with App(unset, choose=refuse) as other:
        assert len(other.search.search(Query(words="title")).matches) == 2
        for query in (
            Query(words="title", words_by="model"),
            Query(words="title", without_words="a"),
            Query(picture=photo(1), words="title"),
        ):
            with pytest.raises(ModelUnavailable, match="it is loaded"):
                other.search.search(query)
    named = settings.model_copy(update={"model": "another"})
    with App(named, choose=refuse) as other, pytest.raises(LookalikeError, match="it is loaded"):
        other.search.search(Query(words="title"))
