"""Identifiers of a product that are evidence of their own: gtin, mpn and item group.

They are read from `Product.attributes`. `analytics._identifier` reads the same in
SQL; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.types import Product

GTIN_NAMES = (
    "gtin", "gtin14", "gtin13", "gtin12", "gtin8", "ean", "ean13", "ean8", "upc", "upca",
    "barcode", "isbn", "isbn13",
)  # fmt: skip
MPN_NAMES = ("mpn", "manufacturerpartnumber", "partnumber")
ITEM_GROUP_NAMES = ("itemgroupid", "itemgroup")
"""Names of attributes without case, punctuation and the prefix `g:` of product feeds; the first
that holds a valid value counts."""

NO_VALUE = frozenset({"0", "-", "na", "n/a", "none", "null", "unknown"})
"""Values that stand for a missing item group."""

Parse = Callable[[str], str | None]
"""The normalised identifier in a text; None if there is none."""

MIN_MPN = 3
"""Letters and digits of the shortest mpn that is evidence."""


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What identifies a product besides words and pictures; None where it has none.

    `gtin` has 14 digits. `mpn` includes the brand, because manufacturers number independently.
    `item_group` includes brand and colour: a group lists the variants of one article, and another
    colour is another product.
    """

    gtin: str | None = None
    mpn: str | None = None
    item_group: str | None = None

    @property
    def names_colour(self) -> bool:
        """Whether the item group is that of a known colour."""
        return bool(self.item_group and self.item_group.split("|")[1])


def identifiers(product: Product, key: str) -> Identifiers:
    """The identifiers of a product with this identity key, whose brand and colour are used."""
    if not product.attributes:
        return Identifiers()
    _, brand, _, colour, *_ = *key.split("|"), "", "", "", ""
    mpn = _first(product.attributes, MPN_NAMES, _mpn) if brand else None
    group = _first(product.attributes, ITEM_GROUP_NAMES, _item_group)
    return Identifiers(
        gtin=_first(product.attributes, GTIN_NAMES, gtin14),
        mpn=None if mpn is None else f"{brand}|{mpn}",
        item_group=None if group is None else f"{brand}|{colour}|{group}",
    )


def gtin14(text: str) -> str | None:
    """A GTIN-8, -12, -13 or -14 (EAN, UPC, ISBN-13) as 14 digits; None if it is none.

    Spaces and hyphens are ignored, leading zeros may be missing, and the check digit must be right
    (GS1 General Specifications, 7.9.1).
    """
    digits = text.replace(" ", "").replace("-", "")
    if not re.fullmatch("[0-9]{8,14}", digits):
        return None
    digits = digits.rjust(14, "0")
    total = sum(int(digit) * (3, 1)[place % 2] for place, digit in enumerate(digits))
    return digits if total % 10 == 0 and int(digits) else None


def _mpn(text: str) -> str | None:
    """A part number in lower case without punctuation; it must hold a digit."""
    kept = re.sub("[^A-Za-z0-9]", "", text).lower()
    return kept if len(kept) >= MIN_MPN and re.search("[0-9]", kept) else None


def _item_group(text: str) -> str | None:
    kept = text.strip(" ")
    return kept if kept and kept.lower() not in NO_VALUE else None


def _first(attributes: Mapping[str, Any], names: Sequence[str], parse: Parse) -> str | None:
    """The first valid value, in the order of `names`, then of the attributes' own names."""
    for name in names:
        for text in _values(attributes, name):
            value = parse(text)
            if value is not None:
                return value
    return None


def _values(attributes: Mapping[str, Any], name: str) -> Iterator[str]:
    for own_name in sorted(attributes):
        plain = re.sub("[^A-Za-z0-9]", "", own_name.removeprefix("g:")).lower()
        value = attributes[own_name]
        if plain == name and isinstance(value, str | int) and not isinstance(value, bool):
            yield str(value)
