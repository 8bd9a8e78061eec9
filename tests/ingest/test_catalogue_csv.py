"""Sources: a CSV or a folder is read as rows; bad rows become rejects with a reason."""

from __future__ import annotations

import os
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest

from app.catalog.entries import GivenFields
from app.errors import BadSource
from ingest.feeds.catalogue_csv import read
from ingest.sources import MAX_FIELD_LENGTH, SourceReject, SourceRow
from support.colours import photo


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.csv"


def rows_of(source: Path, text: str | bytes, **options: str) -> list[SourceRow | SourceReject]:
    source.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read(source, **options))


def one(source: Path, text: str | bytes, **options: str) -> SourceRow:
    (row,) = rows_of(source, text, **options)
    assert isinstance(row, SourceRow), row
    return row


def only_reject(source: Path, text: str | bytes) -> SourceReject:
    (row,) = rows_of(source, text)
    assert isinstance(row, SourceReject), row
    return row


def error_message(source: Path, text: str | bytes, **options: str) -> str:
    with pytest.raises(BadSource) as caught:
        rows_of(source, text, **options)
    return str(caught.value)


def test_every_known_column_is_read_and_the_others_become_attributes(source: Path) -> None:
    row = one(
        source,
        "sku,title,brand,category,colour,year,price,currency,images,packaged,Size\n"
        "A1,Navy blazer,Kestrel,Blazer,navy,2023,182.07,EUR,a.jpg|b.jpg,1,XL\n",
    )
    assert row.images == ("a.jpg", "b.jpg") and row.line == 2
    product = row.product
    assert (product.sku, product.title, product.brand) == ("A1", "Navy blazer", "Kestrel")
    assert (product.category, product.colour, product.year) == ("Blazer", "navy", 2023)
    assert (product.price, product.currency) == (Decimal("182.07"), "EUR")
    assert product.attributes == {"packaged": "1", "Size": "XL"}


def test_empty_fields_are_absent(source: Path) -> None:
    product = one(source, "sku,brand,year,price,size\nA1,,,,\n").product
    assert (product.brand, product.year, product.price) == (None, None, None)
    assert product.attributes == {}


def test_the_header_ignores_spaces_and_case(source: Path) -> None:
    row = one(source, " SKU , Title ,IMAGES\nA1,Coat, a.jpg | b.jpg |\n")
    assert (row.product.title, row.images) == ("Coat", ("a.jpg", "b.jpg"))


@pytest.mark.parametrize(
    "data",
    [
        "sku,title\r\nA1,Crème brûlée\r\n".encode(),
        "sku,title\rA1,Crème brûlée\r".encode(),
        "sku,title\nA1,Crème brûlée".encode("utf-8-sig"),
        "sku,title\nA1,Crème brûlée\n".encode("utf-16"),
        "\ufeffsku,title\nA1,Crème brûlée\n".encode("utf-16-be"),
    ],
    ids=["crlf", "cr", "utf-8 bom", "utf-16", "utf-16-be"],
)
def test_all_line_endings_and_byte_order_marks_are_accepted(source: Path, data: bytes) -> None:
    assert one(source, data).product.title == "Crème brûlée"


def test_a_named_encoding_is_used(source: Path) -> None:
    data = "sku,title\nA1,Crème\n".encode("latin-1")
    assert one(source, data, encoding="latin-1").product.title == "Crème"


def test_rows_in_another_encoding_are_rejected_and_the_others_read(source: Path) -> None:
    bad, good = rows_of(source, b"sku,title\nA1,Cr\xe8me\nA2,Cream\n")
    assert isinstance(bad, SourceReject) and (bad.line, bad.sku) == (2, "A1")
    assert "not utf-8 text" in bad.reason and isinstance(good, SourceRow)


def test_a_sku_in_another_encoding_is_not_reported_as_a_sku(source: Path) -> None:
    assert only_reject(source, b"sku,title\nCr\xe8me,x\n").sku is None


@pytest.mark.parametrize(
    ("encoding", "spelled"),
    [("utf-7", "+2AA-"), ("unicode_escape", r"\ud800"), ("unicode_escape", r"\udfff")],
)
@pytest.mark.parametrize("row", ["A1,{}", "{},x"])
def test_a_lone_surrogate_that_an_encoding_accepts_is_refused(
    source: Path, encoding: str, spelled: str, row: str
) -> None:
    data = f"sku,title\n{row.format(spelled)}\n".encode()
    (reject,) = rows_of(source, data, encoding=encoding)
    assert isinstance(reject, SourceReject) and f"not {encoding} text" in reject.reason


def test_unicode_skus_are_unchanged(source: Path) -> None:
    assert one(source, "sku\n靴-🥾-ÅØ\n").product.sku == "靴-🥾-ÅØ"


def test_a_row_has_the_number_of_its_first_line(source: Path) -> None:
    rows = rows_of(source, 'sku,title\nA1,"two\nlines"\n\nA2,x\n')
    assert [row.line for row in rows] == [2, 5]
    assert isinstance(rows[0], SourceRow) and rows[0].product.title == "two\nlines"


def test_a_row_that_is_cut_short_is_refused(source: Path) -> None:
    reject = only_reject(source, "sku,title,brand\nA1,Coat\n")
    assert "2 values for 3 columns; the row is cut short" in reject.reason and reject.sku == "A1"


@pytest.mark.parametrize("text", ["sku,title\nA1", "title,sku,brand\nCoat, long,A1,Kestrel\n"])
def test_a_sku_that_may_be_cut_or_shifted_is_not_reported_as_a_sku(source: Path, text: str) -> None:
    assert only_reject(source, text).sku is None


def test_a_row_tells_which_columns_the_source_has(source: Path) -> None:
    given = one(source, "SKU,price,Size,brand\nA1,,XL,\n").given
    assert given == GivenFields(frozenset({"price", "brand"}), frozenset({"Size"}), pictures=False)


def test_too_many_values_in_a_row_are_refused(source: Path) -> None:
    reject = only_reject(source, "sku,title\nA1,Coat, long\n")
    assert "3 values for 2 columns" in reject.reason and reject.sku == "A1"


@pytest.mark.parametrize(
    "price", ["NaN", "sNaN", "inf", "1e400", "-3", "12,50", "12.50 €", "1_000", "9999999999.99999"]
)
def test_an_invalid_price_is_refused(source: Path, price: str) -> None:
    reject = only_reject(source, f'sku,price\nA1,"{price}"\n')
    assert "price" in reject.reason and price in reject.reason and reject.sku == "A1"


@pytest.mark.parametrize("year", ["two", "2020.5", "-1", "10000", "1_0", "9" * 5000])
def test_an_invalid_year_is_refused(source: Path, year: str) -> None:
    reject = only_reject(source, f"sku,year\nA1,{year}\n")
    assert "year" in reject.reason and len(reject.reason) < 300


def test_a_price_is_rounded_to_the_four_stored_decimals(source: Path) -> None:
    assert one(source, "sku,price\nA1,1.2345678901\n").product.price == Decimal("1.2346")


def test_a_row_without_a_sku_is_refused(source: Path) -> None:
    reject = only_reject(source, "sku,title\n ,Coat\n")
    assert (reject.sku, reject.reason) == (None, "no sku")


def test_a_sku_that_is_too_long_is_refused(source: Path) -> None:
    assert "longer than 500" in only_reject(source, f"sku\n{'x' * 10_000}\n").reason
    reject = only_reject(source, f"sku,title\nA,{'x' * 1001}\n")
    assert "the title has 1,001 characters, at most 1,000" in reject.reason


@pytest.mark.parametrize("row", ["A\0,t,i", "A1,t\0,i", "A1,t,i\0"])
def test_a_nul_character_is_refused_and_absent_from_the_reject(source: Path, row: str) -> None:
    reject = only_reject(source, f"sku,title,images\n{row}\n")
    assert "NUL" in reject.reason and "\0" not in repr(reject).replace("\\x00", "\0")


def test_more_images_than_a_product_may_have_are_refused(source: Path) -> None:
    assert "at most 100" in only_reject(source, f"sku,images\nA1,{'a.jpg|' * 101}\n").reason


def test_a_field_of_20_mb_is_refused_and_the_next_row_is_read(source: Path) -> None:
    rows = rows_of(source, f"sku,title\nA1,{'x' * 2 * MAX_FIELD_LENGTH}\nA2,x\n")
    assert isinstance(rows[0], SourceReject) and "field larger" in rows[0].reason
    assert isinstance(rows[-1], SourceRow) and rows[-1].product.sku == "A2"


def test_an_unclosed_quote_is_refused(source: Path) -> None:
    rows = rows_of(source, 'sku,title\nA1,x\nA2,"open\nA3,x\n')
    assert isinstance(rows[0], SourceRow) and isinstance(rows[1], SourceReject)
    assert (rows[1].line, rows[1].sku) == (3, None) and "not a CSV row" in rows[1].reason


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="no file or folder"):
        read(tmp_path / "none.csv")


def test_a_file_name_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadSource):
        read(tmp_path / ("x" * 5000))


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(BadSource, match="neither a file nor a folder"):
        read(pipe)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b"title,brand\nCoat,Kestrel\n", "no column sku; it has title, brand"),
        (b"sku;title\nA1;Coat\n", "save it with commas"),
        (b"sku,Title,title\nA1,Coat,x\n", "more than one column title"),
        (b"sku,t\xeftle\nA1,x\n", "--encoding"),
        (photo(1), "not utf-8 text"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)), "catalogue.csv"),
        (b"x" * 2 * MAX_FIELD_LENGTH, "is not a CSV file"),
        (b"x" * (MAX_FIELD_LENGTH // 2), "no column sku"),
        (b'"sku,title\nA1,x\n', "is not a CSV file"),
    ],
    ids=["empty", "no sku", "semicolons", "twice", "header", "png", "jpeg", "huge", "long",
         "quote"],
)  # fmt: skip
def test_a_file_that_is_not_a_catalogue_is_an_error(
    source: Path, data: bytes, expected: str
) -> None:
    message = error_message(source, data)
    assert expected in message and len(message) < 600


def test_an_unknown_encoding_is_an_error(source: Path) -> None:
    assert "no encoding named 'klingon'" in error_message(source, "sku\nA1\n", encoding="klingon")


def test_a_folder_is_read_in_order_with_sku_and_category_from_each_path(tmp_path: Path) -> None:
    for name in ("b.PNG", "shoes/summer/a.jpg", "shoes/c.webp", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo(1))
    rows = [row for row in read(tmp_path) if isinstance(row, SourceRow)]
    fields = [(row.product.sku, row.product.category, row.images) for row in rows]
    assert fields == [
        ("b", None, ("b.PNG",)),
        ("c", "shoes", ("shoes/c.webp",)),
        ("a", "summer", ("shoes/summer/a.jpg",)),
    ]


def test_a_folder_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(photo(1))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (row,) = read(tmp_path / "link")
    assert isinstance(row, SourceRow) and row.images == ("a.png",)


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(BadSource, match=r"no picture in .*looked for .*jpg"):
        list(read(tmp_path))


def test_an_undecodable_file_name_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(photo(1))
    (reject,) = read(tmp_path)
    assert isinstance(reject, SourceReject) and reject.sku is None
    f"{reject}".encode()


def test_a_csv_is_read_line_by_line(source: Path) -> None:
    source.write_text("sku\n" + "".join(f"A{n}\n" for n in range(200_000)))
    rows = read(source)
    assert [row.product.sku for row in islice(rows, 2) if isinstance(row, SourceRow)] == [
        "A0",
        "A1",
    ]
