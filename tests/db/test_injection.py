"""SQL injection: any text reaches SQL as a value; it is found again unchanged, or refused."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.db.queries import models
from app.duplicates import report as duplicate_report
from app.duplicates import verdicts
from app.errors import BadInput, LookalikeError
from app.evaluation.labelled_queries import evaluate, read_queries
from app.search.filters import parse
from app.types import Filters, Query
from ingest.product_fields import MAX_TITLE_LENGTH
from support.colours import ColourEncoder, choose_colours, photo
from support.sources import ingest, write_csv, write_source

HOSTILE = {
    "SQL statement": "'; DROP TABLE product; --",
    "nested SQL statement": "''); DROP TABLE product CASCADE; SELECT ('",
    "psycopg placeholder": "%s %(x)s %% %",
    "Python placeholder": "{model} {0} {columns!r}",
    "SQLAlchemy placeholder": ":name ::text :model",
    "PostgreSQL placeholder": "$1 $$ $x$",
    "quoted identifier": '"; DROP TABLE "product',
    "backslash escapes": "\\' \\x41 E'\\n' \\",
    "SQL comment": "/* -- */ #",
    "LIKE and regex patterns": "_%_ .* [a-z] (?i)",
    "text search query": "a & !b <-> c:* | 'd'",
    "JSON": '{"a": [1, null]} \\u0000',
    "PostgreSQL array": "{a,NULL,\"b\"}",
    "number": "1e400",
    "markup": "<script>alert(1)</script> & [red]x[/red]",
    "spreadsheet formula": "=1+1|'a'!A1",
    "right-to-left text": "\u202eabc\u202c שלום",
    "characters outside the BMP": "👩‍👩‍👧 é e\u0301 \ufeff",
    "line breaks and tabs": "a\nb\r\nc\td",
    "very long": "x'" * 250,
}  # fmt: skip
LONG = "é'" * 5000
NUL = "a\x00b"

hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


@pytest.fixture(scope="module")
def home(server_home: Path, template: str) -> Iterator[str]:
    """A migrated database whose name is an SQL statement."""
    name = "shop'; DROP TABLE product; --\" %s :x"
    quoted = name.replace('"', '""')
    with psycopg.connect(embedded_server.url(server_home, "postgres"), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{quoted}" TEMPLATE {template}'.encode())
        parts = psycopg.conninfo.conninfo_to_dict(embedded_server.url(server_home, "postgres"))
        yield str(
            f"postgresql://{parts['user']}@/{_percent(name)}"
            f"?host={_percent(str(parts['host']))}&port={parts['port']}"
        )
        admin.execute(f'DROP DATABASE "{quoted}" WITH (FORCE)'.encode())


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


@pytest.fixture(scope="module")
def shared(home: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The services on that database, with an index folder whose name is a statement too, and one
    product for every text."""
    folder = tmp_path_factory.mktemp("odd") / "'; DROP TABLE x; -- %s {y} \\ \"é"
    settings = Settings(home=folder, index_dir=folder / "in dex", database_url=home)
    with App(settings, choose=choose_colours) as app:
        report = ingest(app, catalogue(tmp_path_factory.mktemp("'; DROP TABLE y; -- %s {z}")))
        assert (report.added, report.rejected) == (len(HOSTILE), 2)
        assert app.indexer.rebuild().state == "published"
        yield app


def catalogue(folder: Path) -> Path:
    """A source with every text in every column, with a file name and a folder name of that kind."""
    rows: list[dict[str, str]] = []
    for number, text in enumerate(HOSTILE.values()):
        name = f"{number} '; DROP TABLE z; -- %s {{a}} é.png"
        (folder / name).write_bytes(photo(number))
        columns = dict.fromkeys(("sku", "title", "brand", "category", "colour", "currency"), text)
        rows.append(columns | {"images": name, "more'; --": text, "%(x)s {y} :z $1": text})
    rows.append({"sku": LONG, "images": "0.png"})
    rows.append({"sku": NUL, "images": "0.png"})
    return write_csv(folder / "the '; DROP TABLE product; -- %s {s} catalogue.csv", rows)


@pytest.fixture(autouse=True)
def nothing_is_lost(shared: App) -> Iterator[None]:
    """After each test every table exists and holds all products."""
    yield
    assert values(shared, "SELECT count(*) FROM product") == [len(HOSTILE)]


def values(app: App, query: str, *bound: Any) -> list[Any]:
    with app.engine.connect() as connection:
        return list(connection.exec_driver_sql(query, bound).scalars())


def test_texts_of_ten_thousand_characters_are_stored_where_the_column_allows(
    app: App, tmp_path: Path
) -> None:
    (tmp_path / "0.png").write_bytes(photo(0))
    title = LONG[:MAX_TITLE_LENGTH]
    row = {"sku": "1", "images": "0.png", "title": title, "currency": LONG, LONG: LONG}
    assert ingest(app, write_csv(tmp_path / "long.csv", [row])).added == 1
    assert values(app, "SELECT title FROM product") == [title]
    assert values(app, "SELECT currency FROM product") == [LONG]
    assert values(app, "SELECT attributes FROM product") == [{LONG: LONG}]


@hostile
@pytest.mark.parametrize("column", ["sku", "title", "brand", "category", "colour", "currency"])
def test_a_text_is_stored_unchanged(shared: App, column: str, text: str) -> None:
    assert values(shared, f"SELECT {column} FROM product WHERE sku = %s", text) == [text]


@hostile
def test_an_attribute_value_is_stored_unchanged(shared: App, text: str) -> None:
    keys = {"more'; --": text, "%(x)s {y} :z $1": text}
    assert values(shared, "SELECT attributes FROM product WHERE sku = %s", text) == [keys]


def test_the_source_and_its_rejects_are_stored_with_their_reasons(shared: App) -> None:
    (source,) = values(shared, "SELECT source FROM ingest_run")
    assert source.endswith("the '; DROP TABLE product; -- %s {s} catalogue.csv")
    reasons = values(shared, "SELECT reason FROM ingest_reject ORDER BY line")
    assert reasons == ["the sku is longer than 500 characters", "a field holds a NUL character"]


@hostile
@pytest.mark.parametrize("column", ["sku", "title", "brand", "category", "colour", "currency"])
def test_a_filter_finds_the_text_unchanged(shared: App, column: str, text: str) -> None:
    query = Query(picture=photo(0), k=5, filters=Filters({column: text}))
    assert [m.product.sku for m in shared.search.search(query).matches] == [text]


@hostile
def test_an_attribute_filter_finds_the_text(shared: App, text: str) -> None:
    for name in ("more'; --", "%(x)s {y} :z $1"):
        query = Query(picture=photo(0), k=5, filters=Filters({}, {name: text}))
        assert [m.product.sku for m in shared.search.search(query).matches] == [text]


@hostile
def test_an_attribute_name_in_a_filter_is_only_a_name(shared: App, text: str) -> None:
    query = Query(picture=photo(0), filters=Filters({}, {text: text}))
    assert shared.search.search(query).matches == ()
    with pytest.raises(BadInput, match="There is no column"):
        shared.search.search(Query(picture=photo(0), filters=Filters({text: "x"})))


@hostile
def test_a_filter_expression_is_parsed_or_refused(shared: App, text: str) -> None:
    try:
        shared.search.search(Query(picture=photo(0), filters=parse([text, f"{text}={text}"])))
    except BadInput:
        return


@hostile
def test_a_product_is_found_and_excluded_by_its_sku(shared: App, text: str) -> None:
    others = shared.search.search(Query(sku=text, k=50)).matches
    assert text not in [match.product.sku for match in others]
    left = shared.search.search(Query(picture=photo(0), k=50, shown=(text,))).matches
    assert len(left) == len(HOSTILE) - 1 and text not in [m.product.sku for m in left]


@hostile
def test_a_text_query_is_only_a_text(shared: App, text: str) -> None:
    try:
        result = shared.search.search(Query(words=text, words_by="catalogue", k=50))
    except BadInput:
        return
    assert len(result.matches) <= len(HOSTILE)


@hostile
def test_the_reviewer_of_a_verdict_may_have_any_name(shared: App, text: str) -> None:
    first, second, *_ = [each for each in HOSTILE.values() if each != text]
    verdicts.decide(shared.engine, first, second, True, text)
    assert values(shared, "SELECT decided_by FROM duplicate_verdict") == [text.strip()]
    verdict = values(shared, "SELECT sku_a || sku_b FROM duplicate_verdict")
    assert verdict[0] in (first + second, second + first)
    with shared.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM duplicate_verdict")


@hostile
def test_a_model_may_have_any_name(app: App, text: str) -> None:
    with app.engine.begin() as connection:
        model = models.register(connection, text, text, 8, text)
    assert (model.name, model.revision, model.fingerprint) == (text, text, text)
    assert values(app, "SELECT count(*) FROM embedding_m2") == [0]


def test_an_encoder_with_any_name_can_ingest_and_search(
    new_database: Callable[[str | None], str], tmp_path: Path
) -> None:
    name = HOSTILE["SQL statement"]
    settings = Settings(home=tmp_path / "home", database_url=new_database(None), model=name)
    with App(settings, choose=choose_colours) as app:
        app.initialise()
        ingest(app, write_source(tmp_path / "shop", 3))
        app.indexer.rebuild()
        assert app.search.search(Query(picture=photo(1), k=1)).plan.model == name
        assert isinstance(app.encoder(), ColourEncoder)


@hostile
def test_deleting_an_unknown_sku_of_any_text_is_an_error(shared: App, text: str) -> None:
    with pytest.raises(LookalikeError, match="no product has the sku"):
        shared.catalog.delete([f"{text} not there"])


def test_query_files_name_products_and_files_unchanged(shared: App, tmp_path: Path) -> None:
    rows = []
    for number, text in enumerate(HOSTILE.values()):
        name = f"{number} '; -- %s {{q}}.png"
        (tmp_path / name).write_bytes(photo(number))
        rows.append({"query": name, "expected_sku": text})
    queries = read_queries(write_csv(tmp_path / "'; DROP %s.csv", rows))
    assert [query.expected_sku for query in queries] == list(HOSTILE.values())
    result = evaluate(shared.engine, shared.search, queries, Query(), print).as_dict()
    assert result["recall_at_1"] == 1.0


def test_pair_files_name_products_unchanged(shared: App, tmp_path: Path) -> None:
    texts = list(HOSTILE.values())
    rows = [{"sku_a": a, "sku_b": b} for a, b in zip(texts[::2], texts[1::2], strict=True)]
    pairs = duplicate_report.read_pairs(write_csv(tmp_path / "pairs.csv", rows))
    result = duplicate_report.evaluate(shared.engine, pairs, 0.9)
    assert result.known == len(pairs)


REFUSED: dict[str, Callable[[App, str], object]] = {
    "sku": lambda app, text: app.search.search(Query(sku=text)),
    "words": lambda app, text: app.search.search(Query(words=text)),
    "shown": lambda app, text: app.search.search(Query(picture=photo(0), shown=(text,))),
    "filter": lambda app, text: app.search.search(
        Query(picture=photo(0), filters=Filters({"brand": text}))
    ),
    "attribute": lambda app, text: app.search.search(
        Query(picture=photo(0), filters=Filters({}, {text: "x"}))
    ),
    "delete": lambda app, text: app.catalog.delete([text]),
    "verdict": lambda app, text: verdicts.decide(app.engine, text, "b", True, "Ada"),
    "decided by": lambda app, text: verdicts.decide(app.engine, "a", "b", True, text),
}


@pytest.mark.parametrize("text", [NUL, "a\udc80b"], ids=["NUL", "no text"])
@pytest.mark.parametrize("entrance", REFUSED.values(), ids=REFUSED.keys())
def test_a_text_that_postgresql_cannot_store_is_refused_with_an_error(
    shared: App, entrance: Callable[[App, str], object], text: str
) -> None:
    with pytest.raises(BadInput, match=r"NUL character|is not text"):
        entrance(shared, text)


@pytest.mark.parametrize("entrance", REFUSED.values(), ids=REFUSED.keys())
def test_ten_thousand_characters_give_a_result_or_an_error(
    shared: App, entrance: Callable[[App, str], object]
) -> None:
    try:
        entrance(shared, LONG)
    except LookalikeError as exc:
        assert str(exc)


def test_every_text_is_unchanged_by_the_csv_file(tmp_path: Path) -> None:
    rows = [{"sku": text} for text in HOSTILE.values()]
    with write_csv(tmp_path / "all.csv", rows).open(encoding="utf-8", newline="") as file:
        assert [row["sku"] for row in csv.DictReader(file)] == list(HOSTILE.values())
