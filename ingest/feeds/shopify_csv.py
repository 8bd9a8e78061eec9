"""Shopify's CSV export of products, in the older and the newer names of its columns.

A product has several rows: the first has its data, each further one a variant, a picture, or both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from app.errors import BadSource
from ingest.feeds.delimited import NamedValues, open_table
from ingest.feeds.shopify import ShopifyProduct, ShopifyVariant, availability, product_rows
from ingest.product_fields import short
from ingest.sources import SourceReject, SourceRow

NAMES = {
    "url handle": "handle",
    "body (html)": "description",
    "product category": "product_category",
    "published on online store": "published",
    "variant sku": "sku",
    "variant barcode": "barcode",
    "variant price": "price",
    "variant compare at price": "compare_at_price",
    "compare-at price": "compare_at_price",
    "variant inventory qty": "quantity",
    "inventory quantity": "quantity",
    "variant inventory policy": "policy",
    "continue selling when out of stock": "policy",
    "image src": "image",
    "product image url": "image",
    "image position": "position",
    "variant image": "variant_image",
    "variant image url": "variant_image",
    "google shopping / mpn": "mpn",
}
"""Names of columns in lower case, where they differ from the ones that are used here."""

PRODUCT_ATTRIBUTES = ("description", "product_category", "type", "tags", "status", "published")
LAST = 1 << 30
"""The position of a picture that has none."""

Values = Mapping[str, str]


def is_shopify(names: Sequence[str]) -> bool:
    """Whether these columns are those of the export."""
    known = {column_name(name) for name in names}
    return {"handle", "title"} <= known and bool(known & {"option1 value", "image", "vendor"})


def column_name(name: str) -> str:
    """The name by which a column is used here."""
    lowered = name.strip().lower()
    return NAMES.get(lowered, lowered)


def read_shopify_csv(source: Path, encoding: str) -> Iterator[SourceRow | SourceReject]:
    """A row for each variant; rows of one product, which have one handle, must be consecutive.

    Raises BadSource for a file that cannot be read at all, or without the column Handle.
    """
    names, rows = open_table(source, encoding, ",", column_name)
    if "handle" not in names:
        raise BadSource(
            f"{source} has no column Handle or URL handle; it has {short(', '.join(names))}."
        )
    for whole in _products(rows, names):
        if isinstance(whole, SourceReject):
            yield whole
        else:
            yield from product_rows(whole)


def _products(
    rows: Iterator[tuple[int, NamedValues | str]], names: list[str]
) -> Iterator[ShopifyProduct | SourceReject]:
    group: list[tuple[int, Values]] = []
    bad: str | None = None
    after_bad: str | None = None
    for line, values in rows:
        if isinstance(values, str):
            yield SourceReject(line, None, values)
            bad = after_bad = f"line {line}, which may belong to this product, was refused"
            continue
        row = dict(values)
        if group and row["handle"] != group[0][1]["handle"]:
            yield _product(group, names, bad)
            group, bad = [], after_bad
        group.append((line, row))
        after_bad = None
    if group:
        yield _product(group, names, bad)


def _product(group: list[tuple[int, Values]], names: list[str], bad: str | None) -> ShopifyProduct:
    line, first = group[0]
    handle = first["handle"]
    whole = ShopifyProduct(line, handle, unreadable=bad if handle else "no handle")
    whole.pictures_given = "image" in names or "variant_image" in names
    columns = {"title": "title", "vendor": "brand"}
    whole.fields = {ours: first[name] for name, ours in columns.items() if name in first}
    if "type" in first or "product_category" in first:
        category = first.get("product_category", "").rpartition(">")[2].strip()
        whole.fields["category"] = first.get("type") or category
    whole.attributes = {name: first[name] for name in PRODUCT_ATTRIBUTES if name in first}
    whole.images = _images(group)
    options = [first.get(f"option{number} name", "") for number in (1, 2, 3)]
    whole.variants = [
        _variant(line, row, options) for line, row in group if _is_variant(line, row, group)
    ]
    return whole


def _is_variant(line: int, row: Values, group: list[tuple[int, Values]]) -> bool:
    """Whether a row has a variant; one with a picture only does not."""
    return line == group[0][0] or any(
        row.get(name) for name in ("sku", "price", "option1 value", "barcode")
    )


def _variant(line: int, row: Values, options: list[str]) -> ShopifyVariant:
    variant = ShopifyVariant(
        line, row.get("sku", "").lstrip("'"), image=row.get("variant_image", "")
    )
    values = [row.get(f"option{number} value", "") for number in (1, 2, 3)]
    variant.options = tuple(zip(options, values, strict=True))
    if "price" in row:
        variant.fields["price"] = row["price"]
    for name, attribute in (("barcode", "gtin"), ("mpn", "mpn"), ("compare_at_price",) * 2):
        if name in row:
            variant.attributes[attribute] = row[name].lstrip("'")
    if "quantity" in row:
        quantity = int(row["quantity"]) if row["quantity"].lstrip("-").isdecimal() else None
        goes_on = row.get("policy", "").lower() in ("continue", "true")
        variant.attributes["availability"] = availability(quantity, sold_without_stock=goes_on)
    return variant


def _images(group: list[tuple[int, Values]]) -> list[str]:
    """The pictures of all rows in the order of their positions."""
    named = [(row.get("position", ""), row["image"]) for _, row in group if row.get("image")]
    named.sort(key=lambda pair: int(pair[0]) if pair[0].isdecimal() else LAST)
    return list(dict.fromkeys(image for _, image in named))
