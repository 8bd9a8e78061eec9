"""Folds two products that have to do with no others, as most of a page that are alike.

It decides as `folding` does, without the sets that many products need.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.duplicates.evidence import NO_PICTURE, ROUNDING, LoadPictures, PictureEvidence
from app.duplicates.general_words import is_generic
from app.duplicates.groups import DuplicateGroup, FoldCandidate, FoldedCandidate, keeper_order
from app.duplicates.normalization import identity
from app.duplicates.typos import MAX_WORDS
from app.duplicates.word_rules import rule_of
from app.types import Product

Pair = tuple[FoldCandidate, FoldCandidate]


def is_simple(part: Sequence[Product]) -> bool:
    """Whether words and pictures alone decide about two products that no verdict names: they have
    no attributes, which may hold identifiers, and no title that is too long to be compared."""
    return len(part) == 2 and not any(
        each.attributes or len(each.title) > 2 * MAX_WORDS for each in part
    )


def fold_pairs(
    pairs: Sequence[Pair], min_spelling_similarity: float, load_pictures: LoadPictures
) -> list[DuplicateGroup | None]:
    """For each pair whose parts are simple the group of the two, None if they are not one.

    Arguments as of `folding.Folding`.
    """
    rules = [
        rule_of(identity(a.product), identity(b.product), min_spelling_similarity) for a, b in pairs
    ]
    compared = sorted(
        each.sku for pair, rule in zip(pairs, rules, strict=True) if rule for each in pair
    )
    pictures = load_pictures(compared) if compared else PictureEvidence()
    return [
        _group(pair, rule, pictures) if rule else None
        for pair, rule in zip(pairs, rules, strict=True)
    ]


def _group(pair: Pair, rule: str, pictures: PictureEvidence) -> DuplicateGroup | None:
    """The group of two products whose words agree by a rule, if their pictures do, or if one of
    them has none and their words tell which article they are."""
    keeper, other = sorted(pair, key=keeper_order)
    generic = any(is_generic(identity(each.product).key) for each in pair)
    if not (keeper.sku in pictures.vectors and other.sku in pictures.vectors):
        told = FoldedCandidate(other, rule, keeper.sku, NO_PICTURE, None)
        return None if generic else DuplicateGroup(keeper, (told,))
    category = keeper.product.category
    shared = category if category == other.product.category else None
    distance = pictures.distance(keeper.sku, other.sku)
    if distance > pictures.cuts.cut(shared, generic=generic) + ROUNDING:
        return None
    return DuplicateGroup(keeper, (FoldedCandidate(other, rule, keeper.sku, distance=distance),))
