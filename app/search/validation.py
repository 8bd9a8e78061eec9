"""Query validation: required fields, conflicts, ranges."""

from __future__ import annotations

from app.db.text import check_text
from app.errors import BadInput
from app.types import Query

MIN_REGION_SIDE = 0.02
"""Smallest region of a picture, as a share of each side."""

MAX_TEXT = 1000
"""Characters of a text; a CLIP text encoder reads about the first three hundred."""


def check(query: Query) -> None:
    """Raise BadInput for a query that is empty, contradictory or out of range."""
    pictures = query.picture is not None or bool(query.more_pictures)
    if query.vector is not None and (pictures or query.sku or query.words):
        raise BadInput("A vector cannot be combined with pictures, a sku or words; send it alone.")
    if query.sku is not None and pictures:
        raise BadInput("A search takes pictures or a sku, not both.")
    if not pictures and all(part is None for part in (query.sku, query.words, query.vector)):
        raise BadInput("A search takes at least one of: a picture, a sku, words, a vector.")
    for text in (query.words, query.without_words):
        if text is not None and len(text) > MAX_TEXT:
            raise BadInput(f"The text has {len(text)} characters; use at most {MAX_TEXT}.")
    if query.words is not None and not query.words.strip():
        raise BadInput("There are no words to search for.")
    for name, weight in (("words", query.words_weight), ("without", query.without_weight)):
        if not 0 <= weight <= 1:
            raise BadInput(f"The weight of {name} is {weight}; it lies between 0 and 1.")
    for name, distance in (("query", query.near_query), ("match", query.near_match)):
        if distance is not None and not 0 <= distance <= 2:
            raise BadInput(f"The distance to the {name} is {distance}; it lies between 0 and 2.")
    min_similarity = query.min_similarity
    if min_similarity is not None and not -1 <= min_similarity <= 1:
        raise BadInput(f"The minimum similarity is {min_similarity}; it lies between -1 and 1.")
    for text in (query.sku, query.words, query.without_words, *query.shown):
        check_text("text", text or "")
    if query.region is not None:
        _check_region(query)


def _check_region(query: Query) -> None:
    assert query.region is not None
    left, top, right, bottom = query.region
    inside = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    if query.picture is None or not inside or min(right - left, bottom - top) < MIN_REGION_SIDE:
        raise BadInput(
            f"The region {query.region} is not part of a picture: give left, top, right and bottom "
            f"as shares between 0 and 1, at least {MIN_REGION_SIDE} apart, with a picture."
        )
