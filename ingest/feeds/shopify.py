"""Products of Shopify and their variants, each of which becomes a product of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.catalog.entries import FIELDS, GivenFields
from ingest.product_fields import BadField, check_storable, product, readable_sku
from ingest.sources import MAX_IMAGES, SourceReject, SourceRow

COLOURS = frozenset({"color", "colour", "farbe", "couleur", "colore", "kleur"})
"""Names of the option that is the colour."""

NO_OPTION = ("title", "default title")
"""The option that Shopify gives a product without variants."""


@dataclass(slots=True)
class ShopifyVariant:
    """A variant: `options` are pairs of name and value, `fields` columns of ours that it gives."""

    line: int
    sku: str
    options: tuple[tuple[str, str], ...] = ()
    fields: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    image: str = ""

    @property
    def own_options(self) -> tuple[tuple[str, str], ...]:
        """The options without that of a product that has none."""
        return tuple(
            (name, value) for name, value in self.options
            if name and value and (name.lower(), value.lower()) != NO_OPTION
        )  # fmt: skip


@dataclass(slots=True)
class ShopifyProduct:
    """A product with its variants and the addresses of its pictures in order.

    `unreadable` is why a part of it could not be read: then none of it is loaded, because the part
    may be a variant or a picture. `pictures_given` is whether the feed has pictures at all.
    """

    line: int
    handle: str
    fields: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    variants: list[ShopifyVariant] = field(default_factory=list)
    unreadable: str | None = None
    pictures_given: bool = True


def product_rows(whole: ShopifyProduct) -> Iterator[SourceRow | SourceReject]:
    """A row for each variant. Variants share `item_group_id`, the handle."""
    variants = whole.variants or [ShopifyVariant(whole.line, "")]
    for variant in variants:
        sku = variant.sku or _made_sku(whole.handle, variant, len(variants))
        try:
            if whole.unreadable:
                raise BadField(whole.unreadable)
            yield _row(whole, variant, sku, len(variants))
        except BadField as exc:
            yield SourceReject(variant.line, readable_sku(sku), str(exc))


def _made_sku(handle: str, variant: ShopifyVariant, count: int) -> str:
    """The handle, and the options if there are several variants: as in `mug-red-large`."""
    values = [value for _, value in variant.own_options] if count > 1 else []
    if count > 1 and not values:
        return ""
    return "-".join([handle, *(re.sub(r"\W+", "-", value.lower()).strip("-") for value in values)])


def _row(whole: ShopifyProduct, variant: ShopifyVariant, sku: str, count: int) -> SourceRow:
    options = {name.lower(): value for name, value in variant.own_options}
    colour = next((value for name, value in options.items() if name in COLOURS), None)
    fields = {**whole.fields, **variant.fields, "sku": sku}
    if colour is not None:
        fields["colour"] = colour
    attributes = {
        **whole.attributes,
        **variant.attributes,
        **{name: value for name, value in options.items() if name not in COLOURS},
        "handle": whole.handle,
        "item_group_id": whole.handle if count > 1 else "",
    }
    images = _images(whole, variant)
    given = GivenFields(
        frozenset(fields) & frozenset(FIELDS), frozenset(attributes), whole.pictures_given
    )
    return SourceRow(variant.line, product(fields, attributes), images, given)


def _images(whole: ShopifyProduct, variant: ShopifyVariant) -> tuple[str, ...]:
    """The variant's own picture first, then those of the product."""
    names = tuple(name for name in dict.fromkeys((variant.image, *whole.images)) if name)
    if len(names) > MAX_IMAGES:
        raise BadField(f"{len(names)} images; a product shows at most {MAX_IMAGES}")
    return names


def availability(quantity: int | None, *, sold_without_stock: bool) -> str:
    """The value of Google's attribute `availability`; empty if the quantity is unknown."""
    if quantity is None:
        return ""
    return "in_stock" if quantity > 0 else "backorder" if sold_without_stock else "out_of_stock"


def text_of(value: Any) -> str:
    """A value of JSON as text; empty for null. Raises BadField for another value, and for a text
    that cannot be stored."""
    if isinstance(value, Mapping | list | bool):
        raise BadField(f"{value!r:.60} is neither a text nor a number")
    return "" if value is None else check_storable("a value", str(value).strip())
