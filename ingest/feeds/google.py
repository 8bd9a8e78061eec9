"""Products in the attributes of the Google Merchant Center product data specification.

`id`, `color`, `image_link` and the other names below become columns; all other attributes, such as
`link`, `availability` and `item_group_id`, are stored under their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.catalog.entries import GivenFields
from ingest.feeds.money import amount_and_currency
from ingest.product_fields import BadField, product, readable_sku
from ingest.sources import MAX_IMAGES, SourceReject, SourceRow

IMAGES = ("image_link", "additional_image_link")

COLUMNS = {
    "title": ("title",),
    "brand": ("brand",),
    "category": ("product_type", "google_product_category"),
    "colour": ("color",),
    "price": ("price",),
    "currency": ("price",),
}
"""Our columns, and the attributes that each is read from; the first with a value counts."""

_AS_COLUMNS = frozenset({"id", "title", "brand", "color", "price", *IMAGES})
"""Attributes that are not stored under their own names as well."""

Values = Mapping[str, Sequence[str]]
"""Values by the names of attributes; an attribute may occur several times."""


def attribute_name(name: str) -> str:
    """The name of an attribute as the specification has it: `g:Image Link` is `image_link`."""
    return re.sub(r"[\s_]+", "_", name.strip().lower().removeprefix("g:"))


def is_google(names: Sequence[str]) -> bool:
    """Whether these columns are those of a Google feed."""
    known = {attribute_name(name) for name in names}
    return "id" in known and bool(known & {"image_link", "google_product_category", "link"})


def google_row(line: int, values: Values, given: frozenset[str]) -> SourceRow | SourceReject:
    """The row of a product; `given` are the attributes that the feed has.

    A product that the specification does not allow, for instance with a price that is no amount,
    gives a SourceReject.
    """
    sku = _first(values, "id")
    try:
        fields = {"sku": sku, **_fields(values)}
        attributes = {name: _attribute(name, values.get(name, ())) for name in given - _AS_COLUMNS}
        return SourceRow(line, product(fields, attributes), _images(values), _given(given))
    except BadField as exc:
        return SourceReject(line, readable_sku(sku), str(exc))


def _first(values: Values, *names: str) -> str:
    return next((value for name in names for value in values.get(name, ()) if value), "")


def _fields(values: Values) -> dict[str, str]:
    fields = {name: _first(values, *COLUMNS[name]) for name in ("title", "brand", "colour")}
    fields["category"] = _last_part(_first(values, *COLUMNS["category"]))
    fields["price"], fields["currency"] = amount_and_currency(_first(values, "price"))
    return fields


def _last_part(path: str) -> str:
    """`Mugs` of `Home > Kitchen > Mugs`: the whole path is kept as an attribute."""
    return path.rpartition(">")[2].strip()


def _attribute(name: str, values: Sequence[str]) -> Any:
    """The value to store; several are joined. Availability has underscores, as specified."""
    value = ", ".join(value for value in values if value)
    return value.lower().replace(" ", "_") if name == "availability" else value


def _images(values: Values) -> tuple[str, ...]:
    """The addresses, the main one first; several in one value are separated by commas."""
    names = dict.fromkeys(
        part.strip()
        for name in IMAGES
        for value in values.get(name, ())
        for part in re.split(r",(?=\s*https?://)|\s*,\s*$", value, flags=re.IGNORECASE)
        if part and part.strip()
    )
    if len(names) > MAX_IMAGES:
        raise BadField(f"{len(names)} images; a product shows at most {MAX_IMAGES}")
    return tuple(names)


def _given(names: frozenset[str]) -> GivenFields:
    fields = frozenset(field for field, sources in COLUMNS.items() if names & set(sources))
    return GivenFields(fields, names - _AS_COLUMNS, bool(names & set(IMAGES)))
