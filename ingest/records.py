"""Rows from records, that is mappings such as the objects of a JSON file or of a program."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from app.catalog.entries import FIELDS, PICTURES, GivenFields
from ingest.product_fields import (
    COLUMNS,
    BadField,
    check_storable,
    product,
    readable_sku,
    short,
)
from ingest.sources import MAX_IMAGES, SourceReject, SourceRow

SEPARATOR = "|"
"""Between pictures that are given as one text."""


def record_row(line: int, record: Mapping[str, Any]) -> SourceRow | SourceReject:
    """The row of a record: its keys are columns, as in the header of a CSV; others are attributes.

    None and "" clear a field, and a key that is left out keeps what is stored. `images` is a list
    of names, or one text with `|` between them. Numbers and booleans in attributes keep their type;
    lists and objects become JSON text. A record that cannot be used gives a SourceReject.
    """
    named = {_column(name): value for name, value in record.items()}
    try:
        if len(named) < len(record):
            raise BadField("two keys differ in case only")
        images = _images(named.pop(PICTURES, None))
        attributes = {name: _attribute(name, value) for name, value in named.items()
                      if name and name not in COLUMNS}  # fmt: skip
        texts = {name: _text(name, named[name]) for name in COLUMNS if name in named}
        given = GivenFields(
            frozenset(FIELDS) & named.keys(), frozenset(attributes), _gives_images(record)
        )
        return SourceRow(line, product(texts, attributes), images, given)
    except BadField as exc:
        sku = named.get("sku")
        known = readable_sku(str(sku).strip()) if isinstance(sku, str | int) else None
        return SourceReject(line, known, str(exc))


def _column(name: object) -> str:
    text = str(name).strip()
    return text.lower() if text.lower() in COLUMNS else text


def _gives_images(record: Mapping[str, Any]) -> bool:
    return any(_column(name) == PICTURES for name in record)


def _images(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    names = value.split(SEPARATOR) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise BadField("images is neither a list of texts nor one text")
    images = tuple(name.strip() for name in names if name.strip())
    if len(images) > MAX_IMAGES:
        raise BadField(f"{len(images)} images; a product shows at most {MAX_IMAGES}")
    for image in images:
        check_storable("an image", image)
    return images


def _text(name: str, value: Any) -> str:
    """The value of a column as a CSV would have it."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadField(f"the {name} is {short(repr(value))}, neither a text nor a number")
    if isinstance(value, float):
        value = _number(name, value)
        value = int(value) if value.is_integer() else value
    text = str(value).strip()
    check_storable(f"the {name}", text)
    return text


def _attribute(name: str, value: Any) -> Any:
    check_storable("the name of an attribute", name)
    if isinstance(value, str):
        value = value.strip()
    elif isinstance(value, float):
        _number(name, value)
    elif isinstance(value, Decimal | date | datetime):
        value = str(value)
    elif not (value is None or isinstance(value, bool | int)):
        try:
            value = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
        except (ValueError, TypeError, RecursionError) as exc:
            raise BadField(f"the attribute {short(name)!r} cannot be stored: {exc}") from None
    if isinstance(value, str):
        check_storable(f"the attribute {short(name)!r}", value)
    return value


def _number(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise BadField(f"the {short(name)} is {value}, which is no number")
    return value
