"""What is searched for, without the photos, as one immutable value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from app.search.filters import parse
from app.types import Filters, Region, Value

TextReader = Literal["automatic", "model", "catalogue"]
Sorting = Literal["best", "newest", "cheapest", "dearest"]

PAGE_SIZES = (12, 24, 48)
"""Products on one page of results."""

MAX_PAGE = 200
"""Largest page number."""

PercentBox = tuple[int, int, int, int]
"""Left, top, right and bottom edge of a part of a picture, in percent of its sides."""


@dataclass(frozen=True, slots=True)
class SearchFormState:
    """Everything that is asked, one field for each thing that can be changed.

    Similarity, distance, weights and `k` have the units of `app.types.Query`. None means no bound.
    At most one of `photo`, `shared`, `link` and `sku` is given.
    """

    photo: str = ""
    """The id of photos that the session keeps."""
    shared: str = ""
    """The id of a stored photo, which every session can search with until it expires."""
    link: str = ""
    """The URL of a picture."""
    sku: str = ""
    box: PercentBox | None = None
    """The part of the photo that is searched with."""
    words: str = ""
    weight: float = 0.5
    reader: TextReader = "automatic"
    without: str = ""
    brand: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    colour: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    """Conditions such as `material=wool`."""
    year_from: int | None = None
    year_to: int | None = None
    price_from: float | None = None
    price_to: float | None = None
    min_similarity: float | None = None
    near_match: float | None = None
    fold: bool = True
    k: int = PAGE_SIZES[0]
    sort: Sorting = "best"
    page: int = 1

    @property
    def compares(self) -> bool:
        """Whether results are compared with a picture or a product."""
        return bool(self.photo or self.shared or self.link or self.sku)


FIELDS = tuple(field.name for field in fields(SearchFormState))
DEFAULT = SearchFormState()
REFERENCES = {"photo": "", "shared": "", "link": "", "sku": "", "box": None}
"""The fields of the picture or product that results are compared with, without any."""

FILTER_FIELDS = (
    "brand", "category", "colour", "attributes", "year_from", "year_to", "price_from", "price_to",
    "min_similarity", "near_match", "fold",
)  # fmt: skip
"""Fields that exclude products from the results."""


def to_filters(form: SearchFormState) -> Filters:
    """The filters of the form. Raises BadInput for a range whose end is below its start."""
    texts = {
        "year": range_text(form.year_from, form.year_to),
        "price": range_text(form.price_from, form.price_to),
    }
    ranges = parse([f"{name}={text}" for name, text in texts.items() if text])
    columns: dict[str, tuple[Value, ...]] = {
        name: values for name in ("brand", "category", "colour") if (values := getattr(form, name))
    }
    more = parse(form.attributes)
    return Filters({**more.columns, **columns}, more.attributes, ranges.at_least, ranges.at_most)


def to_region(box: PercentBox | None) -> Region | None:
    """The box as fractions; None for the whole picture."""
    if box is None:
        return None
    left, top, right, bottom = (edge / 100 for edge in box)
    return left, top, right, bottom


def count_changed(form: SearchFormState, fields: Sequence[str] = FILTER_FIELDS) -> int:
    """How many of these fields differ from the default."""
    return sum(getattr(form, field) != getattr(DEFAULT, field) for field in fields)


def cleared(fields: Sequence[str] = FILTER_FIELDS) -> dict[str, Any]:
    """The default values of these fields."""
    return {field: getattr(DEFAULT, field) for field in fields}


def range_text(low: float | None, high: float | None) -> str:
    """A range as `low..high`, where either bound may be missing; empty without bounds."""
    return "" if low is None and high is None else f"{number_text(low)}..{number_text(high)}"


def number_text(value: float | None) -> str:
    """A number with at most four decimals, the precision of a price in the catalogue."""
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
