"""The JSON of products that are written, and the rows of an upload that it becomes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Annotated, Self

from pydantic import Base64Bytes, Field, ValidationError, model_validator

from app.api.problems import InvalidRequest
from app.api.request_bodies import check_json_depth
from app.api.requests import Strict
from app.catalog.entries import EVERYTHING, FIELDS, GivenFields
from app.db.text import is_storable
from ingest.product_fields import BadField, product, readable_sku
from ingest.sources import SourceReject, SourceRow
from ingest.uploads import Deletion, UploadRow

MAX_ROWS = 10_000
"""Rows of a batch."""

MAX_PICTURES = 50
"""Pictures of a product."""

Value = str | int | float | bool | None


class PictureSource(Strict):
    """A picture: its file in base64, or the http or https address to load it from."""

    base64: Base64Bytes | None = None
    url: Annotated[str, Field(min_length=1, max_length=2000)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.base64 is None) == (self.url is None):
            raise ValueError("give either base64 or url")
        return self


class ProductFields(Strict):
    """The data of a product."""

    title: str = ""
    brand: str | None = None
    category: str | None = None
    colour: str | None = None
    year: int | None = None
    price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    currency: str | None = None
    attributes: dict[str, Value] = Field(default={})
    pictures: Annotated[list[PictureSource], Field(max_length=MAX_PICTURES)] = Field(
        default=[], description="in order; left out: the stored ones stay"
    )


class ProductRow(ProductFields):
    """A row of a batch: fields that are left out keep what is stored; an attribute that is null is
    removed. With `delete` the product is deleted."""

    sku: str = Field(min_length=1)
    delete: bool = False


@dataclass(slots=True)
class UploadPlan:
    """Rows to write, and the bytes of the pictures that were sent with them, by name."""

    rows: list[UploadRow] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def add_file(self, data: bytes) -> str:
        """Keep the bytes of a picture; returns the name that rows have for it."""
        name = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.files[name] = data
        return name

    def add_product(self, sku: str, fields: ProductFields, more: list[bytes]) -> None:
        """A row that is the whole product, with further pictures after those of `fields`. Its
        pictures stay if none are given."""
        pictures = bool(more) or "pictures" in fields.model_fields_set
        given = replace(EVERYTHING, pictures=pictures)
        names = self._names(fields) + tuple(self.add_file(data) for data in more)
        self.rows.append(_row(1, sku, fields, names, given))

    def add_line(self, line: int, text: bytes) -> None:
        """The row of a line of a batch; one that cannot be read becomes a refused row."""
        try:
            check_json_depth(text)
            row = ProductRow.model_validate_json(text)
        except ValidationError as exc:
            self.rows.append(SourceReject(line, _sku(text), _reason(exc)))
            return
        except InvalidRequest as exc:
            self.rows.append(SourceReject(line, None, str(exc)))
            return
        if row.delete:
            self.rows.append(_deletion(line, row))
            return
        self.rows.append(_row(line, row.sku, row, self._names(row), _given(row)))

    def _names(self, fields: ProductFields) -> tuple[str, ...]:
        names = []
        for each in fields.pictures:
            if each.base64 is not None:
                names.append(self.add_file(each.base64))
            else:
                assert each.url is not None
                names.append(each.url)
        return tuple(names)


def _row(
    line: int, sku: str, fields: ProductFields, images: tuple[str, ...], given: GivenFields
) -> SourceRow | SourceReject:
    texts = {name: getattr(fields, name) for name in FIELDS}
    texts = {name: "" if value is None else str(value) for name, value in texts.items()}
    attributes = {name: value for name, value in fields.attributes.items() if value is not None}
    try:
        for text in (sku, *texts.values(), *map(str, (*attributes, *attributes.values()))):
            if not is_storable(text):
                raise BadField("a field has a character that cannot be stored, such as NUL")
        made = replace(product({**texts, "sku": sku}, {}), attributes=attributes)
    except BadField as exc:
        return SourceReject(line, readable_sku(sku), str(exc))
    return SourceRow(line, made, images, given)


def _deletion(line: int, row: ProductRow) -> Deletion | SourceReject:
    if row.model_fields_set - {"sku", "delete"}:
        return SourceReject(line, readable_sku(row.sku), "a row that deletes has no other fields")
    if readable_sku(row.sku) is None:
        return SourceReject(line, None, "no product has such a sku")
    return Deletion(line, row.sku)


def _given(row: ProductRow) -> GivenFields:
    fields = frozenset(FIELDS) & row.model_fields_set
    return GivenFields(fields, frozenset(row.attributes), "pictures" in row.model_fields_set)


def _sku(text: bytes) -> str | None:
    """The sku of a row that is refused, if it can be read."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    sku = document.get("sku") if isinstance(document, dict) else None
    return readable_sku(sku) if isinstance(sku, str) else None


def _reason(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    message = found["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
