"""The result of Shopify's bulk operations on products: JSON lines, linked by `__parentId`.

Children need not follow their parents, so the products are held in memory until the end of the
file: about a kilobyte each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ingest.feeds.json_text import json_lines
from ingest.feeds.shopify import (
    ShopifyProduct,
    ShopifyVariant,
    availability,
    product_rows,
    text_of,
)
from ingest.product_fields import BadField
from ingest.sources import SourceReject, SourceRow

PREFIX = "gid://shopify/"

ATTRIBUTES = {
    "onlineStoreUrl": "link",
    "status": "status",
    "tags": "tags",
    "productType": "type",
    "descriptionHtml": "description",
    "description": "description",
}
"""Fields of a product that become attributes."""

Object = Mapping[str, Any]


def read_shopify_jsonl(source: Path) -> Iterator[SourceRow | SourceReject]:
    """A row for each variant, and a reject for each line that belongs to no product.

    Raises BadSource for a file that cannot be read at all.
    """
    products: dict[str, ShopifyProduct] = {}
    children: list[tuple[int, Object]] = []
    for line, value in json_lines(source):
        if isinstance(value, str):
            yield SourceReject(line, None, value)
        elif "__parentId" in value:
            children.append((line, value))
        else:
            products[str(value.get("id", ""))] = _product(line, value)
    for line, child in children:
        parent = products.get(str(child["__parentId"]))
        if parent is None:
            yield SourceReject(line, None, "its __parentId is that of no product in the file")
        else:
            _add(parent, line, child)
    for whole in products.values():
        yield from product_rows(whole)


def _product(line: int, value: Object) -> ShopifyProduct:
    whole = ShopifyProduct(line, "", pictures_given=False)
    try:
        whole.handle = text_of(value.get("handle")) or text_of(value.get("id")).rpartition("/")[2]
        for name, ours in (("title", "title"), ("vendor", "brand"), ("productType", "category")):
            if name in value:
                whole.fields[ours] = text_of(value[name])
        for name, ours in ATTRIBUTES.items():
            if name in value:
                whole.attributes[ours] = _joined(value[name])
        for name in ("featuredImage", "featuredMedia"):
            if name in value:
                _add_image(whole, value[name])
        for name in ("variants", "images", "media"):  # connections that were asked for inline
            for child in _nodes(value.get(name)):
                _add(whole, line, child)
    except BadField as exc:
        whole.unreadable = str(exc)
    return whole


def _add(whole: ShopifyProduct, line: int, value: Object) -> None:
    """Add a variant or a picture; objects of other kinds are left out."""
    kind = str(value.get("id", "")).removeprefix(PREFIX).partition("/")[0]
    try:
        if kind == "ProductVariant" or "selectedOptions" in value:
            whole.variants.append(_variant(whole, line, value))
        elif kind in ("ProductImage", "MediaImage", "Image") or (not kind and _url(value)):
            _add_image(whole, value)
    except BadField as exc:
        whole.unreadable = f"line {line}: {exc}"


def _variant(whole: ShopifyProduct, line: int, value: Object) -> ShopifyVariant:
    variant = ShopifyVariant(line, text_of(value.get("sku")))
    variant.options = tuple(
        (text_of(each.get("name")), text_of(each.get("value")))
        for each in value.get("selectedOptions") or () if isinstance(each, Mapping)
    )  # fmt: skip
    _add_price(variant, value.get("price"), given="price" in value)
    for name, ours in (("barcode", "gtin"), ("compareAtPrice", "compare_at_price")):
        if name in value:
            variant.attributes[ours] = _amount(value[name])
    if "inventoryQuantity" in value or "availableForSale" in value:
        variant.attributes["availability"] = _availability(value)
    for name in ("image", "media"):
        if name in value:
            whole.pictures_given = True
            variant.image = variant.image or _url(value[name])
    return variant


def _add_price(variant: ShopifyVariant, price: Any, *, given: bool) -> None:
    if given:
        variant.fields["price"] = _amount(price)
    if isinstance(price, Mapping) and "currencyCode" in price:
        variant.fields["currency"] = text_of(price["currencyCode"])


def _amount(value: Any) -> str:
    return text_of(value.get("amount") if isinstance(value, Mapping) else value)


def _availability(value: Object) -> str:
    quantity = value.get("inventoryQuantity")
    if not isinstance(quantity, int):
        sold = value.get("availableForSale")
        return "" if sold is None else availability(int(bool(sold)), sold_without_stock=False)
    goes_on = value.get("inventoryPolicy") == "CONTINUE"
    return availability(quantity, sold_without_stock=goes_on)


def _add_image(whole: ShopifyProduct, value: Any) -> None:
    whole.pictures_given = True
    url = _url(value)
    if url and url not in whole.images:
        whole.images.append(url)


def _url(value: Any) -> str:
    """The address in an Image, a MediaImage, or a media with a preview."""
    if not isinstance(value, Mapping):
        return ""
    for name in ("url", "src", "originalSrc"):
        if isinstance(value.get(name), str):
            return text_of(value[name])
    preview = value.get("preview")
    inner = value.get("image") or (preview.get("image") if isinstance(preview, Mapping) else None)
    return _url(inner)


def _nodes(connection: Any) -> list[Object]:
    """The objects of a connection: a list, or its `nodes` or `edges`."""
    if isinstance(connection, Mapping):
        edges = connection.get("edges")
        connection = connection.get("nodes") or (
            [each.get("node") for each in edges if isinstance(each, Mapping)]
            if isinstance(edges, list) else []
        )  # fmt: skip
    return [each for each in connection or () if isinstance(each, Mapping)]


def _joined(value: Any) -> str:
    return ", ".join(text_of(each) for each in value) if isinstance(value, list) else text_of(value)
