"""Matches of hits: products with their details, for the merged list and for each object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.search.dedup import ScoredHit, similarity_of
from app.search.page_data import PageData
from app.search.page_hits import PageRequest
from app.search.paging import Page, page
from app.types import Folded, Match, Region, RegionMatches, Vector

REGION_MATCHES = 5
"""Matches of each object beside the merged list."""


def page_matches(data: PageData, result_page: Page) -> tuple[Match, ...]:
    """The matches of a page, with their details."""
    kept = result_page.deduplicated.kept
    pairs = [(each.hit.product_id, each.hit.picture_id) for each, _ in kept]
    matches = matches_of(kept, data.details(pairs))
    shared = {each.picture_id: each for each in result_page.shared}
    if not any(match.picture_id in shared for match in matches):
        return matches
    listed = data.products([id_ for each in shared.values() for id_ in each.others])
    return tuple(
        match if (each := shared.get(match.picture_id)) is None else replace(
            match, same_picture=each.products,
            listed=tuple(listed[id_] for id_ in each.others if id_ in listed),
        )
        for match in matches
    )  # fmt: skip


def region_matches(
    request: PageRequest,
    objects: Sequence[tuple[Region, Sequence[Vector]]],
) -> tuple[RegionMatches, ...]:
    """Each object, a box with the vectors (dim,) to search by, with its own first matches, under
    the same filters, options and earlier pages."""
    regions = []
    for box, (first, *others) in objects:
        k = min(request.retrieval.k, REGION_MATCHES)
        own = replace(request.retrieval, vector=first, also=tuple(others), k=k)
        matches = page_matches(request.data, page(replace(request, retrieval=own)))
        regions.append(RegionMatches(box, None, matches))
    return tuple(regions)


def matches_of(
    kept: Sequence[tuple[ScoredHit, tuple[Folded, ...]]], rows: Mapping[int, Any]
) -> tuple[Match, ...]:
    """Matches of hits, the products folded into each, and the rows of details by product id."""
    return tuple(
        Match(
            rank=rank,
            product=each.product,
            product_id=each.hit.product_id,
            picture_id=each.hit.picture_id,
            similarity=similarity_of(each.hit),
            image=rows[each.hit.product_id].uri,
            thumbnail=bytes(rows[each.hit.product_id].thumbnail),
            folded=folded,
        )
        for rank, (each, folded) in enumerate(kept, start=1)
    )
