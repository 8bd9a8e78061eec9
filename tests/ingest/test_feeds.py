"""Product feeds: each format is recognised and read as its specification has it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.db.text import is_storable
from app.errors import BadSource
from ingest.feeds import google_xml, json_text
from ingest.feeds.formats import FORMATS, read_source, recognise
from ingest.feeds.money import amount_and_currency
from ingest.product_fields import BadField
from ingest.sources import SourceReject, SourceRow

EXAMPLES = Path(__file__).with_name("feeds")
CDN = "https://cdn.test/"


def read(name: str | Path, **options: Any) -> tuple[dict[str, SourceRow], list[SourceReject]]:
    """The good rows by sku, and the rejects."""
    rows = list(read_source(EXAMPLES / name, **options))
    good = {row.product.sku: row for row in rows if isinstance(row, SourceRow)}
    return good, [row for row in rows if isinstance(row, SourceReject)]


def images(row: SourceRow) -> list[str]:
    assert all(image.startswith(CDN) for image in row.images)
    return [image.removeprefix(CDN) for image in row.images]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("google.tsv", "google-tsv"),
        ("google_rss.xml", "google-xml"),
        ("google_atom.xml", "google-xml"),
        ("shopify.csv", "shopify-csv"),
        ("shopify_new_columns.csv", "shopify-csv"),
        ("shopify_bulk.jsonl", "shopify-jsonl"),
        ("products.jsonl", "jsonl"),
    ],
)
def test_a_format_is_recognised_by_the_content_of_a_file(
    name: str, format: str, tmp_path: Path
) -> None:
    (tmp_path / "feed").write_bytes(b"\xef\xbb\xbf" + (EXAMPLES / name).read_bytes())
    assert recognise(tmp_path / "feed") == format
    bare = [row.product for row in read(tmp_path / "feed")[0].values()]
    assert bare == [row.product for row in read(name, format=format)[0].values()] != []


def test_every_format_has_an_example() -> None:
    seen = {recognise(path) for path in EXAMPLES.iterdir()}
    assert seen | {"auto", "csv", "parquet"} == set(FORMATS)


def test_a_google_table_has_columns_attributes_and_pictures() -> None:
    good, rejects = read("google.tsv")
    assert list(good) == ["MUG-Y", "MUG-B"]
    mug = good["MUG-Y"]
    assert (mug.product.title, mug.product.brand, mug.product.category, mug.product.colour) == (
        "Checked mug", "Okari", "Mugs", "yellow",
    )  # fmt: skip
    assert (mug.product.price, mug.product.currency) == (Decimal("12.50"), "EUR")
    assert images(mug) == ["mug-y.png", "mug-y-side.png", "mug-y-top.png"]
    assert dict(mug.product.attributes) == {
        "description": 'Stoneware, 0.3 l, with a "checked" glaze',
        "link": "https://shop.test/mug?c=y", "availability": "in_stock", "gtin": "4006381333931",
        "google_product_category": "Home & Garden > Kitchen & Dining > Drinkware > Mugs",
        "product_type": "Kitchen > Mugs", "item_group_id": "MUG", "sale_price": "9.99 EUR",
    }  # fmt: skip
    other = good["MUG-B"].product
    assert other.price == 1250 and other.category == "2169"
    assert other.attributes["availability"] == "out_of_stock"
    assert [(each.line, each.sku) for each in rejects] == [(4, "LAMP-1"), (5, None)]
    assert "12.50 EUR" in rejects[0].reason and "cut short" in rejects[1].reason


def test_a_google_table_clears_what_is_empty_and_keeps_what_it_has_no_column_for() -> None:
    given = read("google.tsv")[0]["MUG-B"].given
    assert given.fields == {"title", "brand", "category", "colour", "price", "currency"}
    assert given.pictures and given.attributes is not None
    assert {"sale_price", "size", "gtin"} <= given.attributes and "material" not in given.attributes


def test_google_names_may_be_separated_by_commas_and_have_spaces(tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_text(
        "ID,Title,Image Link,Item Group ID\nA,Mug,https://cdn.test/a.png,G\n"
    )
    row = read(tmp_path / "feed.csv")[0]["A"]
    assert images(row) == ["a.png"] and row.product.attributes == {"item_group_id": "G"}


def test_rss_and_atom_have_the_same_attributes() -> None:
    good, rejects = read("google_rss.xml")
    assert list(good) == ["MUG-Y", "MUG-B"] and rejects == []
    mug = good["MUG-Y"]
    assert (mug.line, mug.product.title, mug.product.colour) == (7, "Checked mug", "yellow")
    assert images(mug) == ["mug-y.png", "mug-y-side.png", "mug-y-top.png"]
    assert mug.product.attributes["description"] == "Stoneware, <b>0.3 l</b> & more"
    assert mug.product.attributes["link"] == "https://shop.test/mug?c=y&ref=feed"
    assert "shipping" not in mug.product.attributes and mug.product.price == Decimal("12.50")
    (atom,) = read("google_atom.xml")[0].values()
    assert (atom.product.sku, atom.product.price) == ("MUG-Y", Decimal("12.50"))
    assert atom.product.attributes["link"] == "https://shop.test/mug?c=y"
    assert atom.product.attributes["description"] == "Stoneware, 0.3 l"


def test_an_xml_product_clears_what_other_products_of_the_feed_have() -> None:
    given = read("google_rss.xml")[0]["MUG-B"].given
    assert given.attributes is not None and {"sale_price", "gtin"} <= given.attributes


def xml(body: str, head: str = "") -> str:
    return f'<?xml version="1.0"?>{head}<rss><channel>{body}</channel></rss>'


ITEM = "<item><id>A</id><title>{}</title></item>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (xml(ITEM.format("&x;"), '<!DOCTYPE r [<!ENTITY x SYSTEM "/etc/passwd">]>'), "DOCTYPE"),
        (xml(ITEM.format("&b;"), '<!DOCTYPE r [<!ENTITY a "a"><!ENTITY b "&a;">]>'), "DOCTYPE"),
        (xml(ITEM.format("&undefined;")), "not well-formed"),
        (xml("<a>" * 40), "32 deep"),
        (xml(""), "no product"),
        ('<?xml version="1.0" encoding="klingon"?><rss/>', "klingon|encoding"),
        ("<rss><channel>" + ITEM.format("x"), "cut off"),
    ],
    ids=["external entity", "entities", "undefined", "deep", "empty", "encoding", "cut"],
)  # fmt: skip
def test_a_hostile_or_broken_xml_feed_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "feed.xml").write_text(text)
    with pytest.raises(BadSource, match=message):
        list(read_source(tmp_path / "feed.xml"))


def test_an_xml_feed_that_breaks_off_gives_the_products_before(tmp_path: Path) -> None:
    text = (EXAMPLES / "google_rss.xml").read_text()
    (tmp_path / "feed.xml").write_text(text[: text.index("<g:id>MUG-B")])
    rows = read_source(tmp_path / "feed.xml")
    first = next(rows)
    assert isinstance(first, SourceRow) and first.product.sku == "MUG-Y"
    with pytest.raises(BadSource, match="cut off"):
        next(rows)


def test_an_oversized_xml_product_is_refused_without_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_xml, "MAX_FIELD_LENGTH", 1000)
    monkeypatch.setattr(google_xml, "BLOCK", 500)
    text = xml(ITEM.format("x" * 2000) + "<item><id>B</id></item>")
    (tmp_path / "feed.xml").write_text(text)
    good, rejects = read(tmp_path / "feed.xml")
    assert list(good) == ["B"] and "more than" in rejects[0].reason
    (tmp_path / "feed.xml").write_text(xml(f'<item><link rel="{"x" * 3000}"/></item>'))
    with pytest.raises(BadSource, match="tag of more than"):
        list(read_source(tmp_path / "feed.xml"))


def test_a_shopify_export_has_a_product_for_each_variant() -> None:
    good, rejects = read("shopify.csv")
    assert list(good) == ["MUG-Y-S", "checked-mug-yellow-l", "LAMP-1"] and rejects == []
    small, large, lamp = good.values()
    assert images(small) == ["mug-y.png", "mug-front.png", "mug-side.png", "mug-top.png"]
    assert (small.product.brand, small.product.category, small.product.colour) == (
        "Okari", "Mug", "Yellow",
    )  # fmt: skip
    assert small.product.attributes.items() >= {
        "item_group_id": "checked-mug", "size": "S", "gtin": "4006381333931",
        "availability": "in_stock", "tags": "kitchen, gift", "status": "active",
    }.items()  # fmt: skip
    assert (large.product.price, large.product.attributes["availability"]) == (14, "backorder")
    assert lamp.product.category == "Lamps" and "item_group_id" not in lamp.product.attributes
    assert "colour" not in lamp.given.fields and lamp.product.attributes["status"] == "draft"
    assert lamp.product.attributes["availability"] == "out_of_stock"


def test_the_newer_columns_of_shopify_are_read_alike() -> None:
    good, _ = read("shopify_new_columns.csv")
    assert [(sku, images(row)) for sku, row in good.items()] == [
        ("MUG-Y", ["mug-y.png", "mug.png"]), ("MUG-B", ["mug-b.png", "mug.png"]),
    ]  # fmt: skip
    assert [row.product.colour for row in good.values()] == ["Yellow", "Blue"]
    assert [row.product.title for row in good.values()] == ["Checked mug"] * 2


def test_a_bad_row_refuses_the_shopify_products_it_may_belong_to(tmp_path: Path) -> None:
    lines = (EXAMPLES / "shopify.csv").read_text().splitlines()
    lines[4] = lines[4][:20]
    (tmp_path / "feed.csv").write_text("\n".join(lines))
    good, rejects = read(tmp_path / "feed.csv")
    assert good == {}
    assert {each.sku for each in rejects} == {None, "MUG-Y-S", "checked-mug-yellow-l", "LAMP-1"}
    assert "line 5" in rejects[-1].reason


def test_shopify_objects_are_joined_by_their_parents_in_any_order(tmp_path: Path) -> None:
    good, rejects = read("shopify_bulk.jsonl")
    assert list(good) == ["MUG-Y", "checked-mug-blue-s", "LAMP-1"]
    yellow, blue, lamp = good.values()
    assert images(yellow) == ["mug-y.png", "mug.png"] and images(blue) == ["mug.png"]
    assert images(lamp) == ["lamp.png"] and lamp.product.price == Decimal("65.95")
    assert yellow.product.attributes["link"] == "https://shop.test/products/checked-mug"
    assert [row.product.attributes["availability"] for row in good.values()] == [
        "in_stock", "out_of_stock", "backorder",
    ]  # fmt: skip
    assert blue.product.attributes["item_group_id"] == "checked-mug"
    assert [(each.line, each.sku) for each in rejects] == [(8, None)]
    lines = (EXAMPLES / "shopify_bulk.jsonl").read_text().splitlines()
    (tmp_path / "feed.jsonl").write_text("\n".join(lines[::-1]))
    assert {sku: row.product for sku, row in read(tmp_path / "feed.jsonl")[0].items()} == {
        sku: row.product for sku, row in good.items()
    }


def test_json_lines_have_our_names_or_those_of_google() -> None:
    good, rejects = read("products.jsonl")
    mug, other, lamp = good.values()
    assert mug.product.attributes == {"stock": 4, "handmade": True, "sizes": '["S", "L"]'}
    assert (mug.product.price, mug.product.year) == (Decimal("12.5"), 2024)
    assert images(mug) == ["mug-y.png", "mug-y-side.png"]
    assert other.given.fields == {"price"} and other.product.price is None
    assert not other.given.pictures
    assert images(lamp) == ["lamp.png", "lamp-2.png"] and lamp.product.currency == "EUR"
    assert [(each.line, each.sku) for each in rejects] == [(5, None), (6, None)]
    assert "not JSON" in rejects[1].reason and "cut off" in rejects[1].reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1]", "not a JSON object"),
        (b"\xff", "not UTF-8"),
        (b'{"sku": "A", "year": "old"}', "year"),
        (b'{"sku": "A", "price": 1e999}', "no number"),
        (b'{"sku": "A", "note": "\\ud800"}', "not text"),
        (b'{"sku": {"a": 1}}', "neither"),
        (b'{"sku": "A", "images": {"a": 1}}', "images"),
        (b"[" * 100_000, "nested|JSON"),
        (b'{"sku": "' + b"x" * 3000 + b'"}', "more than"),
    ],
)
def test_a_bad_line_is_refused_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes, reason: str
) -> None:
    monkeypatch.setattr(json_text, "MAX_FIELD_LENGTH", 2000 if b"x" in line else 1 << 20)
    (tmp_path / "feed").write_bytes(line + b'\n{"sku": "NEXT"}\n')
    good, (reject,) = read(tmp_path / "feed", format="jsonl")
    assert list(good) == ["NEXT"] and reject.line == 1
    assert any(part in reject.reason for part in reason.split("|")), reject.reason


@pytest.mark.parametrize("bad", ["\\u0000", "\\ud800"])
@pytest.mark.parametrize(
    "line",
    [
        '{"id": "A", "link": "x", "title": "BAD"}',
        '{"id": "A", "link": "x", "BAD": "y"}',
        '{"id": "A", "image_link": ["x", "BAD"]}',
        '{"sku": "A", "images": ["BAD"]}',
        '{"sku": "A", "BAD": 1}',
        '{"sku": "A", "note": {"BAD": 1}}',
        '{"id": "gid://shopify/Product/1", "handle": "A", "vendor": "BAD"}',
        '{"id": "gid://shopify/Product/1", "handle": "A", "images": [{"url": "BAD"}]}',
        '{"id": "gid://shopify/Product/BAD", "variants": [{"sku": "A", "selectedOptions":'
        ' [{"name": "Size", "value": "BAD"}]}]}',
    ],
)
def test_text_that_cannot_be_stored_is_refused_in_every_place(
    tmp_path: Path, line: str, bad: str
) -> None:
    (tmp_path / "feed").write_text(line.replace("BAD", bad))
    rows = list(read_source(tmp_path / "feed"))
    assert rows
    for row in rows:
        if isinstance(row, SourceRow):  # escaped in the JSON text of an attribute
            stored = [row.product.sku, row.product.title, *row.images, *row.product.attributes]
            stored += [text for text in row.product.attributes.values() if isinstance(text, str)]
            assert "note" in row.product.attributes and all(map(is_storable, stored))


def test_parquet_has_the_types_of_its_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "sku": ["A", "B"], "price": [Decimal("1.50"), None], "year": [2020, 2021],
            "images": [["https://cdn.test/a.png"], []], "stock": [1, 2], "weight": [0.5, None],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "feed.parquet")
    good, rejects = read(tmp_path / "feed.parquet")
    first, second = good.values()
    assert (first.product.price, first.product.year) == (Decimal("1.50"), 2020)
    assert first.product.attributes == {"stock": 1, "weight": 0.5} and images(first) == ["a.png"]
    assert second.product.attributes == {"stock": 2} and second.given.pictures and not rejects


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_parquet_file_that_was_cut_off_is_refused(tmp_path: Path, keep: float) -> None:
    pq.write_table(pa.table({"sku": ["A", "B"]}), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(BadSource, match="cannot be read as Parquet"):
        list(read_source(tmp_path / "cut"))


def test_parquet_text_that_is_not_utf_8_is_an_error_of_the_file(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"sku": text}), tmp_path / "feed")
    with pytest.raises(BadSource, match="cannot be read as Parquet"):
        list(read_source(tmp_path / "feed"))


def test_a_parquet_file_without_a_sku_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["A"]}), tmp_path / "feed")
    with pytest.raises(BadSource, match="no column sku or id"):
        list(read_source(tmp_path / "feed"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08", "compressed"),
        (b"PK\x03\x04", "spreadsheet: .* save the sheet as CSV"),
        (b' [ {"a": 1}]', "array"),
    ],
)
def test_a_file_that_no_format_reads_is_refused_with_advice(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "feed").write_bytes(content)
    with pytest.raises(BadSource, match=message):
        read_source(tmp_path / "feed")


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "auto"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, format: str) -> None:
    (tmp_path / "feed").write_text("neither\n")
    try:
        rows = list(read_source(tmp_path / "feed", format=format))
    except BadSource:
        return
    assert rows and all(isinstance(row, SourceReject) for row in rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.50 EUR", ("12.50", "EUR")), ("EUR 12.50", ("12.50", "EUR")), ("12", ("12", "")),
        ("1,250.00 USD", ("1250.00", "USD")), ("1.250,00 EUR", ("1250.00", "EUR")),
        ("12,5 EUR", ("12.5", "EUR")), ("1,250 USD", ("1250", "USD")), ("", ("", "")),
        ("1,250,000 JPY", ("1250000", "JPY")), ("1.250.000 EUR", ("1250000", "EUR")),
    ],
)  # fmt: skip
def test_prices_of_feeds_are_read(text: str, expected: tuple[str, str]) -> None:
    assert amount_and_currency(text) == expected


@pytest.mark.parametrize("text", ["cheap", "12 EUR USD", "EUR 12 USD", "-5 EUR", "EUR", "1 2"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(BadField, match="not an amount"):
        amount_and_currency(text)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(EXAMPLES.iterdir())), st.integers(0, 3000))
def test_damaged_feeds_give_rows_rejects_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, example: Path, place: int
) -> None:
    data = example.read_bytes()
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(data[:place] + noise + data[place + len(noise) :])
    try:
        for row in read_source(file):
            assert isinstance(row, SourceRow | SourceReject)
    except BadSource:
        pass
