"""The JSON of answers. Similarities and distances are given as computed, not rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.search.facets import Facets
from app.search.result_fields import duplicate_fields, facet_fields
from app.types import Match, Plan, Product, SearchResult

JSON = "application/json"


class ProductData(BaseModel):
    """The data of a product."""

    sku: str
    title: str
    brand: str | None
    category: str | None
    colour: str | None
    year: int | None
    price: float | None
    currency: str | None
    attributes: dict[str, Any]


class FoldedData(BaseModel):
    """A product that is collapsed into a match as its duplicate."""

    sku: str
    title: str
    year: int | None
    rule: str
    matched_by: str
    evidence: str
    similarity: float | None
    distance: float | None


class ListingData(BaseModel):
    """A product with the words of a match that is not the same product."""

    sku: str
    title: str
    year: int | None
    rule: str
    reason: str
    distance: float | None


class SamePictureData(BaseModel):
    """How many products show the picture of a match, and the first of the others."""

    products: int
    more: bool
    skus: list[str]


class MatchData(ProductData):
    """A product of the result; `thumbnail` is the address of its most similar picture."""

    rank: int
    similarity: float | None = Field(description="cosine, -1 to 1; null: found by words alone")
    means: Literal["same photo", "same product", "similar"] | None
    image: str
    thumbnail: str | None
    folded: list[FoldedData]
    same_picture: SamePictureData | None
    similar_count: int
    similar_more: bool
    similar: list[ListingData]


class RegionData(BaseModel):
    """An object of the photo: left, top, right and bottom edge as fractions, and its matches."""

    box: list[float]
    confidence: float | None
    matches: list[MatchData]


class DroppedData(BaseModel):
    """A product that was left out, and by which rule."""

    sku: str
    rule: str
    distance: float | None
    lost_to: str | None


class PlanData(BaseModel):
    """How the answer came about; `ms` are milliseconds by stage."""

    build: int | None
    built_at: datetime | None
    delta_rows: int | None
    candidates: int
    vanished: int
    shortfall: str | None = Field(description="why there are fewer products than k")
    shortfall_counts: dict[str, Any] | None
    words: str | None
    language: str | None
    corrected: list[dict[str, str]]
    synonyms: list[dict[str, str]]
    ignored: list[str]
    excluded: list[str] = Field(description="words of products that were left out")
    unknown: list[dict[str, Any]]
    not_tried: list[str]
    replica_lag_s: float | None
    ms: dict[str, float]


class SearchAnswer(BaseModel):
    """The products found, best first."""

    query_id: str = Field(description="names this answer, for events that refer to it")
    model: str
    path: str
    reason: str
    reason_code: str
    matches: list[MatchData]
    regions: list[RegionData]
    dropped: list[DroppedData]
    confidence: float | None
    close: bool | None
    cursor: str | None = Field(description="for the next page; null: this is the last one")
    plan: PlanData


class ProblemData(BaseModel):
    """Why a request was refused, as of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


class BatchAnswer(BaseModel):
    """An answer or a problem for each query, in the order of the queries."""

    answers: list[SearchAnswer | ProblemData]


class PhotoAnswer(BaseModel):
    """A stored photo, and the objects that were found in it."""

    photo_id: str
    expires: datetime
    model: str
    regions: list[RegionData]
    query_id: str
    path: str
    reason: str


class ValueCount(BaseModel):
    """A value, and how many products have it."""

    value: str
    products: int


class FacetData(BaseModel):
    """The values of a column or attribute, most frequent first; `left_out` more are not listed."""

    counts: list[ValueCount]
    left_out: int


class YearRange(BaseModel):
    """The first and the last year."""

    first: int | None
    last: int | None


class PriceRange(BaseModel):
    """The lowest and the highest price."""

    lowest: float | None
    highest: float | None


class FacetAnswer(BaseModel):
    """Values to filter by. With `depth`, only so many of the products found were counted."""

    query_id: str
    model: str | None = Field(description="null: no model was needed")
    path: str = Field(description="how the products that were counted were found")
    reason: str
    products: int
    depth: int | None
    values: dict[str, FacetData]
    year: YearRange
    price: PriceRange


class PictureData(BaseModel):
    """A picture of a product: where it was loaded from, and the address of its thumbnail."""

    sha256: str
    uri: str
    thumbnail: str


class ProductAnswer(ProductData):
    """A product with its pictures in order."""

    pictures: list[PictureData]


class ChangeAnswer(BaseModel):
    """What a row of a batch changed, or why it was refused; the row's pictures that were refused
    are in `pictures`. `sku` is null where the row has none."""

    line: int
    sku: str | None
    change: Literal["added", "updated", "unchanged", "deleted", "refused"]
    reason: str | None = None
    pictures: list[dict[str, str]] = []


class EventsAnswer(BaseModel):
    """How many events were stored, and which of their members were not."""

    stored: int
    dropped: list[str]


class HealthAnswer(BaseModel):
    """Whether the process answers and reaches its catalogue."""

    status: Literal["ok"]


def encode(document: Mapping[str, Any]) -> bytes:
    """A document as JSON in UTF-8; decimals become texts, so give numbers as floats."""
    return to_json(document, fallback=str)


def thumbnail_address(sha256: bytes) -> str:
    """The address of the thumbnail of a picture."""
    return f"/v1/pictures/{sha256.hex()}/thumbnail"


def search_answer(
    result: SearchResult, hashes: Mapping[int, bytes], query_id: str, cursor: str | None
) -> dict[str, Any]:
    """The members of SearchAnswer; `hashes` has the sha256 of pictures by id."""
    plan = result.plan
    return {
        "query_id": query_id,
        "model": plan.model,
        "path": plan.path,
        "reason": plan.reason,
        "reason_code": plan.reason_code,
        "matches": [_match(match, hashes) for match in result.matches],
        "regions": regions(result, hashes),
        "dropped": [asdict(drop) for drop in result.dropped],
        "confidence": result.confidence,
        "close": result.close,
        "cursor": cursor,
        "plan": _plan(plan),
    }


def regions(result: SearchResult, hashes: Mapping[int, bytes]) -> list[dict[str, Any]]:
    """The objects found in the photo, each with its matches."""
    return [
        {
            "box": list(region.box),
            "confidence": region.confidence,
            "matches": [_match(match, hashes) for match in region.matches],
        }
        for region in result.regions
    ]


def product_data(product: Product) -> dict[str, Any]:
    """The members of ProductData."""
    return {
        "sku": product.sku,
        "title": product.title,
        "brand": product.brand,
        "category": product.category,
        "colour": product.colour,
        "year": product.year,
        "price": _number(product.price),
        "currency": product.currency,
        "attributes": dict(product.attributes),
    }


def facet_answer(facets: Facets, query_id: str) -> dict[str, Any]:
    """The members of FacetAnswer."""
    bounds = facets.bounds
    return {
        "query_id": query_id,
        "model": facets.model,
        "path": facets.path,
        "reason": facets.reason,
        "products": bounds.products,
        "depth": facets.depth,
        "values": {name: facet_fields(values) for name, values in facets.values.items()},
        "year": {"first": bounds.first_year, "last": bounds.last_year},
        "price": {"lowest": _number(bounds.lowest), "highest": _number(bounds.highest)},
    }


def _match(match: Match, hashes: Mapping[int, bytes]) -> dict[str, Any]:
    sha256 = hashes.get(match.picture_id)
    return {
        **product_data(match.product),
        "rank": match.rank,
        "similarity": match.similarity,
        "means": match.means,
        "image": match.image,
        "thumbnail": None if sha256 is None else thumbnail_address(sha256),
        **duplicate_fields(match),
    }


def _plan(plan: Plan) -> dict[str, Any]:
    reading, counts = plan.reading, plan.shortfall_counts
    return {
        "build": plan.build,
        "built_at": plan.built_at,
        "delta_rows": plan.delta_rows,
        "candidates": plan.candidates,
        "vanished": plan.vanished,
        "shortfall": plan.shortfall,
        "shortfall_counts": None if counts is None else asdict(counts),
        "words": plan.words,
        "language": reading.language if reading else None,
        "corrected": [asdict(each) for each in reading.corrected] if reading else [],
        "synonyms": [asdict(each) for each in reading.synonyms] if reading else [],
        "ignored": list(reading.ignored) if reading else [],
        "excluded": list(reading.excluded) if reading else [],
        "unknown": [asdict(each) for each in plan.unknown],
        "not_tried": list(plan.not_tried),
        "replica_lag_s": plan.replica_lag_s,
        "ms": dict(plan.ms),
    }


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
