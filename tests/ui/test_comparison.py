"""Pinned products side by side."""

from __future__ import annotations

import re
from decimal import Decimal

from app.types import Product
from app.ui.components.comparison import comparison_html

MUG = Product(
    sku="A", title="Blue <b>mug</b>", brand="Kestrel", category="mug", colour="blue", year=2020,
    price=Decimal("9.50"), currency="EUR", attributes={"material": "clay", "<i>": "&"},
)  # fmt: skip
CUP = Product(sku="B", title="Cup", brand="Kestrel", category="mug", colour="red")


def rows(html: str) -> list[tuple[bool, list[str]]]:
    """Each row of the table: whether it is marked as different, and its cells."""
    found = re.findall(r"<tr( class=differs)?><th scope=row>(.*?)</tr>", html)
    return [
        (bool(mark), re.split(r"<[^>]*>+", cells.replace("</td>", ""))) for mark, cells in found
    ]


def test_fields_that_differ_come_first_and_empty_ones_are_left_out() -> None:
    table = rows(comparison_html([(MUG, None), (CUP, b"jpeg")]))
    names = [cells[0] for _, cells in table]
    assert names == [
        "Colour", "Year", "Price", "SKU", "&lt;i&gt;", "material", "Brand", "Category",
    ]  # fmt: skip
    assert [mark for mark, _ in table] == [True] * 6 + [False] * 2
    assert table[2][1][-2:] == ["€9.50", "&mdash;"]


def test_text_is_escaped_and_a_missing_picture_is_said() -> None:
    html = comparison_html([(MUG, None), (CUP, b"jpeg")])
    assert "Blue &lt;b&gt;mug&lt;/b&gt;" in html and "<b>mug" not in html
    assert (html.count("No picture"), html.count("<img")) == (1, 1)
