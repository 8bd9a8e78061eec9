"""Counts the products that have the words of a match and are not folded into it, and reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Engine

from app.config import Settings
from app.db.engine import snapshot
from app.db.queries import partitions, products
from app.db.queries.products import SameWords
from app.duplicates.folding import Folding
from app.duplicates.groups import FoldCandidate
from app.duplicates.normalization import identity_key
from app.index.file_store import IndexFiles
from app.search.page_data import PageData, SnapshotData
from app.types import Match, Model, SimilarListing

MAX_COMPARED = 60
"""Products with the same words that are read for one match; further ones are only counted."""

MAX_LISTED = 12
"""Similar listings of one match."""

FARTHEST = 3.0
"""Greater than every cosine distance: listings without a picture to compare come last."""


def counted(data: PageData, matches: Sequence[Match]) -> tuple[Match, ...]:
    """The matches, each with the number of products that have its words and are not folded into
    it."""
    counts = data.count_same_words([match.product_id for match in matches])
    return tuple(_counted(match, counts[match.product_id]) for match in matches)


def _counted(match: Match, same_words: int) -> Match:
    if same_words <= 1:
        return match
    if same_words > products.MAX_COUNTED:
        return replace(match, similar_count=products.MAX_COUNTED, similar_more=True)
    others = same_words - 1
    if others > 0 and match.folded:
        key = identity_key(match.product)
        others -= sum(identity_key(fold.product) == key for fold in match.folded)
    return replace(match, similar_count=others) if others > 0 else match


def read(
    engine: Engine, model: Model, files: IndexFiles, settings: Settings, matches: Sequence[Match]
) -> tuple[Match, ...]:
    """`with_similar_listings` in a snapshot of now."""
    with snapshot(engine) as connection:
        partitions.lock_attached(connection)
        data = SnapshotData(connection, model, files, settings)
        return with_similar_listings(data, matches, settings.typo_similarity)


def with_similar_listings(
    data: SnapshotData, matches: Sequence[Match], min_spelling_similarity: float
) -> tuple[Match, ...]:
    """The matches, each with its similar listings, the nearest first, and their number.

    Products that differ by a typo are not looked for. A product that is the same as the match, but
    was not among the hits, is no similar listing either.
    """
    keys = {match.product.sku: identity_key(match.product) for match in matches}
    same_words = data.same_words(sorted({key for key in keys.values() if key}), MAX_COMPARED)
    if not any(_has_others(match, same_words.get(keys[match.product.sku])) for match in matches):
        return tuple(matches)
    own = [fold.product for match in matches for fold in match.folded]
    listed = [product for each in same_words.values() for product in each.products]
    by_sku = {each.sku: each for each in (*listed, *own, *(match.product for match in matches))}
    folding = Folding(
        [FoldCandidate(product, 1.0) for product in by_sku.values()],
        data.verdicts(sorted(by_sku)),
        min_spelling_similarity,
        data.pictures,
    )
    found = ((match, same_words.get(keys[match.product.sku])) for match in matches)
    return tuple(match if same is None else _with(match, same, folding) for match, same in found)


def _has_others(match: Match, same: SameWords | None) -> bool:
    """Whether there are products with the words of a match besides those that are folded into
    it."""
    if same is None:
        return False
    own = {match.product.sku, *(fold.product.sku for fold in match.folded)}
    return same.count > len(same.products) or any(each.sku not in own for each in same.products)


def _with(match: Match, same_words: SameWords, folding: Folding) -> Match:
    own = {match.product.sku, *(fold.product.sku for fold in match.folded)}
    others = [each.sku for each in same_words.products if each.sku not in own]
    listings = [
        SimilarListing(pair.other, pair.rule, pair.reason, pair.distance)
        for pair in folding.relations(match.product.sku, others)
    ]
    listings.sort(key=_nearest_first)
    more = same_words.count > products.MAX_COUNTED
    count = len(listings) + _not_read(match, same_words)
    return replace(
        match, similar=tuple(listings[:MAX_LISTED]), similar_more=more,
        similar_count=products.MAX_COUNTED if more else count,
    )  # fmt: skip


def _not_read(match: Match, same_words: SameWords) -> int:
    """The products with the words of a match that were not read, without those that are known to be
    the match or folded into it."""
    key = identity_key(match.product)
    same = {fold.product.sku for fold in match.folded if identity_key(fold.product) == key}
    known = {each.sku for each in same_words.products} | same | {match.product.sku}
    return max(0, same_words.count - len(known))


def _nearest_first(listing: SimilarListing) -> tuple[float, str]:
    distance = FARTHEST if listing.distance is None else listing.distance
    return distance, listing.product.sku
