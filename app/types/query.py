"""What is searched for: a query and its filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from app.types.catalogue import Vector

Value = str | int | Decimal


@dataclass(frozen=True, slots=True)
class Filters:
    """Which products may match; every condition must hold, and an empty filter lets all pass.

    A column in `columns` must equal the value, or one of several. `at_least` and `at_most` bound
    `year` and `price`, bounds included. A key in `attributes` must have the value, or one of
    several, as text or as the JSON number, boolean or null that the text spells.
    """

    columns: Mapping[str, Value | Sequence[Value]] = field(default_factory=dict)
    attributes: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    at_least: Mapping[str, int | Decimal] = field(default_factory=dict)
    at_most: Mapping[str, int | Decimal] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.columns or self.attributes or self.at_least or self.at_most)


WordsBy = Literal["model", "catalogue"]


WordsLanguage = Literal["en", "de"]


Region = tuple[float, float, float, float]
"""Left, top, right and bottom edge of a part of a picture, as fractions (0 to 1) of its sides."""


@dataclass(frozen=True, slots=True)
class Query:
    """A search request: by pictures, a sku, words or a vector; words may accompany pictures or a
    sku.

    `picture` and `more_pictures` (file bytes) show one object; only the part `region` of `picture`
    is used. Words next to pictures or a sku re-rank what is near these, with the weight
    `words_weight` (0 to 1). Words alone are searched by the model's text tower and by full text in
    the catalogue, and the results are fused; `words_by` selects one of the two. Words typed in
    German (`words_language` "de") are German where they could be English too, and misspelt German
    ones are corrected. `without_pictures` and `without_words` are negative examples with the weight
    `without_weight`. `vector` is a unit vector of the model `model_id` and searches only under that
    model. Without a vector, `model_id` selects a maintained model other than the active one.

    `k` is the number of products to return (1 to Settings.max_k), and `shown` the skus of earlier
    pages (`SearchResult.shown`). With `fold`, duplicate products are collapsed into one match, and
    the other products with the words of a match are counted; with `listings` they are read too.
    `near_query` and `near_match` are near-duplicate distances (cosine, 0 to 2): products at most
    this far from the query, or from a better match, are dropped. Products less similar to the query
    than `min_similarity` (cosine, -1 to 1) are not shown; full-text matches have no similarity.

    With `objects`, a single `picture` without a `region` is searched by its regions too, unless the
    whole picture has a match that leaves no doubt.
    """

    picture: bytes | None = None
    sku: str | None = None
    words: str | None = None
    vector: Vector | None = None
    model_id: int | None = None
    k: int = 10
    filters: Filters = field(default_factory=Filters)
    untrusted: bool = False
    """The pictures come from an untrusted source: decode them in a separate process."""
    more_pictures: tuple[bytes, ...] = ()
    region: Region | None = None
    words_weight: float = 0.5
    words_by: WordsBy | None = None
    words_language: WordsLanguage | None = None
    without_pictures: tuple[bytes, ...] = ()
    without_words: str | None = None
    without_weight: float = 0.5
    shown: tuple[str, ...] = ()
    fold: bool = False
    listings: bool = False
    near_query: float | None = None
    near_match: float | None = None
    min_similarity: float | None = None
    objects: bool = True
