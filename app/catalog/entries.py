"""A product of a source: which of its fields the source gives, and what they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.types import PictureRef, Product

FIELDS = ("title", "brand", "category", "colour", "year", "price", "currency")
"""Fields of a product that a source may give, besides its attributes and pictures."""

PICTURES = "images"
"""How sources and reports call the pictures of a product."""


@dataclass(frozen=True, slots=True)
class GivenFields:
    """What a source gives of a product; everything else keeps what is stored.

    `fields` are names in FIELDS, `attributes` names of attributes, or None if the attributes are
    replaced as a whole; `pictures` is whether the pictures are given.
    """

    fields: frozenset[str] = frozenset(FIELDS)
    attributes: frozenset[str] | None = None
    pictures: bool = True


EVERYTHING = GivenFields()
"""The entry is the whole product."""


@dataclass(frozen=True, slots=True)
class ProductEntry:
    """A product of a source, with its pictures in order.

    A new product is stored as it is here; of a stored product only the `given` fields change.
    `unread` names pictures that the source has and that could not be read, each with the number of
    `pictures` before it: a stored product keeps those that it shows under this name.
    """

    product: Product
    pictures: tuple[PictureRef, ...] = ()
    given: GivenFields = EVERYTHING
    unread: tuple[tuple[int, str], ...] = ()


def is_filled(value: object) -> bool:
    """Whether a field has a value; '' is none, 0 is one."""
    return value is not None and value != ""


def emptied(product: Product, given: GivenFields) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the given fields and of the given attributes that have no value."""
    fields = (name for name in given.fields if not is_filled(getattr(product, name)))
    attributes = (given.attributes or frozenset()) - product.attributes.keys()
    return frozenset(fields), frozenset(attributes)


def merged(entry: ProductEntry, product: Product, pictures: tuple[PictureRef, ...]) -> ProductEntry:
    """The whole product after the entry is applied to a stored product and its pictures."""
    given = entry.given
    fields: dict[str, Any] = {name: getattr(entry.product, name) for name in given.fields}
    fields["attributes"] = _merged_attributes(entry, product.attributes)
    shown = _merged_pictures(entry, pictures) if given.pictures else pictures
    return ProductEntry(replace(product, **fields), shown)


def _merged_attributes(entry: ProductEntry, stored: Mapping[str, Any]) -> Mapping[str, Any]:
    given = entry.given.attributes
    if given is None:
        return entry.product.attributes
    kept = {name: value for name, value in stored.items() if name not in given}
    return {**kept, **entry.product.attributes}


def _merged_pictures(entry: ProductEntry, stored: tuple[PictureRef, ...]) -> tuple[PictureRef, ...]:
    shown = list(entry.pictures)
    by_name = {ref.uri: ref for ref in stored}
    for place, name in reversed(entry.unread):
        kept = by_name.get(name)
        if kept is not None and kept.sha256 not in (ref.sha256 for ref in shown):
            shown.insert(place, kept)
    return tuple(shown)


def changed_columns(
    before: Product, pictures: tuple[PictureRef, ...], after: ProductEntry
) -> tuple[str, ...]:
    """The names of the columns in which a product differs: FIELDS, attributes, PICTURES."""
    product = after.product
    fields = [name for name in FIELDS if getattr(before, name) != getattr(product, name)]
    attributes = sorted(
        name for name in before.attributes.keys() | product.attributes.keys()
        if (name in before.attributes, before.attributes.get(name))
        != (name in product.attributes, product.attributes.get(name))
    )  # fmt: skip
    return (*fields, *attributes, *([PICTURES] if pictures != after.pictures else []))
