"""Parts of results as plain values for JSON, the same for the command line and the HTTP API.

`number` is applied to similarities and distances (None stays None).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.types import Folded, Match, SimilarListing

if TYPE_CHECKING:
    from app.db.queries.facets import FacetValues

Number = Callable[[float | None], float | None]


def as_computed(number: float | None) -> float | None:
    """A number with all its digits."""
    return number


def duplicate_fields(match: Match, number: Number = as_computed) -> dict[str, Any]:
    """The products that a match stands for, and those with the same words."""
    return {
        "folded": [_folded(fold, number) for fold in match.folded],
        "same_picture": None if match.same_picture is None else {
            "products": match.same_picture.products,
            "more": match.same_picture.more,
            "skus": [product.sku for product in match.listed],
        },
        "similar_count": match.similar_count,
        "similar_more": match.similar_more,
        "similar": [_listing(listing, number) for listing in match.similar],
    }  # fmt: skip


def facet_fields(values: FacetValues) -> dict[str, Any]:
    """The values of a facet, most frequent first, and how many more there are."""
    counts = [{"value": value, "products": count} for value, count in values.counts]
    return {"counts": counts, "left_out": values.left_out}


def _folded(fold: Folded, number: Number) -> dict[str, Any]:
    return {
        "sku": fold.product.sku,
        "title": fold.product.title,
        "year": fold.product.year,
        "rule": fold.rule,
        "matched_by": fold.like,
        "similarity": number(fold.similarity),
        "evidence": fold.evidence,
        "distance": number(fold.distance),
    }


def _listing(listing: SimilarListing, number: Number) -> dict[str, Any]:
    return {
        "sku": listing.product.sku,
        "title": listing.product.title,
        "year": listing.product.year,
        "rule": listing.rule,
        "reason": listing.reason,
        "distance": number(listing.distance),
    }
