"""A wish: what somebody looks for on the search page, but for the pictures, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from app.search.filters import parse
from app.types import Filters, Value

InputMethod = Literal["photo", "link", "camera", "product"]
TextReader = Literal["automatic", "model", "catalogue"]

SIZES = (12, 24, 48)
"""Products on one page of results."""


@dataclass(frozen=True, slots=True)
class SearchFormState:
    """What the widgets of the search page say; each field is a widget.

    Similarity, distance, weights and sizes as in `values.Query`. A bound that is None is none.
    """

    by: InputMethod = "photo"
    sku: str = ""
    words: str = ""
    weight: float = 0.5
    reader: TextReader = "automatic"
    without: str = ""
    brand: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    colour: tuple[str, ...] = ()
    year_from: int | None = None
    year_to: int | None = None
    price_from: float | None = None
    price_to: float | None = None
    min_similarity: float | None = None
    near_match: float | None = None
    fold: bool = True
    k: int = SIZES[0]


FIELDS = tuple(field.name for field in fields(SearchFormState))
DEFAULT = SearchFormState()
NARROWING = (
    "brand", "category", "colour", "year_from", "year_to", "price_from", "price_to",
    "min_similarity", "near_match", "fold",
)  # fmt: skip
"""Fields that leave out what would be found without them."""


def filters(wish: SearchFormState) -> Filters:
    """The filters of a wish; raises BadInput where a range ends before it begins."""
    spans = {
        "year": span(wish.year_from, wish.year_to),
        "price": span(wish.price_from, wish.price_to),
    }
    ranges = parse([f"{name}={said}" for name, said in spans.items() if said])
    chosen: dict[str, tuple[Value, ...]] = {
        name: found for name in ("brand", "category", "colour") if (found := getattr(wish, name))
    }
    return Filters(chosen, {}, ranges.at_least, ranges.at_most)


def narrowed(wish: SearchFormState, fields: Sequence[str] = NARROWING) -> int:
    """How many of these fields are set."""
    return sum(getattr(wish, field) != getattr(DEFAULT, field) for field in fields)


def span(low: float | None, high: float | None) -> str:
    """A range as `low..high`, either left out; empty where there is none."""
    return "" if low is None and high is None else f"{number(low)}..{number(high)}"


def number(value: float | None) -> str:
    """A number with no more than four decimals, as many as the catalogue keeps of a price."""
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def of(said: dict[str, Any]) -> SearchFormState:
    """The wish of what the widgets say, by field."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in said.items()
    }
    return SearchFormState(**values)
