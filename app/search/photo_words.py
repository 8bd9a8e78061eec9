"""Photo and words: the words re-rank the products nearest to the photo, and find no others.

First come products of the photo's kind, then among them those that have the words, each group in
the order of its similarity to the photo. A model that reads words orders a group by both
similarities (late fusion), instead of by one vector between photo and words, whose neighbours are
like neither.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from app.types import Hit

POOL_PRODUCTS = 1000
"""Products nearest to the photo that the words re-rank. More only where a page needs more."""

KIND_NEIGHBOURS = 40
KIND_POWER = 6
MIN_DISTANCE = 0.01
"""The nearest products vote for their category with distance ** -KIND_POWER: the product itself, if
the catalogue has it, outvotes all others, and products that are about as far count about the
same. Nearer ones than MIN_DISTANCE vote as those at it."""

KIND_SHARE = 0.5
"""Categories with at least this share of the largest vote are the photo's kind."""

BONUS = 4.0
"""At a weight of 0.5, having the words counts as the largest difference of two similarities (2),
and being of the photo's kind as twice that."""


@dataclass(frozen=True, slots=True)
class PoolProduct:
    """A product near the photo.

    `words` is the share (0 to 1) of the words that the catalogue has for it, `text_similarity` its
    cosine similarity (-1 to 1) to the words, or its score by that and the colours that they name;
    None if the model has not read them.
    """

    hit: Hit
    category: str | None = None
    words: float = 0.0
    text_similarity: float | None = None


def kinds_by_vote(neighbours: Sequence[tuple[str | None, float]]) -> frozenset[str]:
    """The categories of a photo, from (category, cosine similarity) of products near it, nearest
    first; empty if none of them has a category."""
    votes: dict[str, float] = defaultdict(float)
    known = [(name, similarity) for name, similarity in neighbours if name]
    for name, similarity in known[:KIND_NEIGHBOURS]:
        votes[name] += max(1 - similarity, MIN_DISTANCE) ** -KIND_POWER
    least = KIND_SHARE * max(votes.values(), default=0.0)
    return frozenset(name for name, vote in votes.items() if vote >= least)


def kinds_of_query(
    kinds: frozenset[str], words: str, categories: Collection[str]
) -> frozenset[str]:
    """The kinds to look for: those of the photo, unless the words name others of these categories.

    "dress" beside a photo of a shirt asks for dresses, and "t-shirt" does not ask for shirts.
    """
    said = _tokens(words)
    own = {name: _tokens(name) for name in categories}
    named = {name: tokens for name, tokens in own.items() if tokens and tokens <= said}
    exact = frozenset(
        name
        for name, tokens in named.items()
        if not any(tokens < others for others in named.values())
    )
    return (kinds & exact) or exact or kinds


def rank(
    pool: Sequence[PoolProduct], kinds: Collection[str], *, weight: float, catalogue_weight: float
) -> list[tuple[Hit, float]]:
    """The products with their scores, best first.

    `weight` (0 to 1) is that of the similarity to the words, `catalogue_weight` (0 to 1) that of
    kind and words in the catalogue. With both 0 the order is that of the photo.
    """
    scores = _similarities(pool, weight)
    bonus = BONUS * catalogue_weight
    scored = [
        (each.hit, score + bonus * (2 * (each.category in kinds) + each.words))
        for each, score in zip(pool, scores, strict=True)
    ]
    return sorted(scored, key=lambda item: (-item[1], item[0].distance, item[0].product_id))


def _similarities(pool: Sequence[PoolProduct], weight: float) -> list[float]:
    """The similarity of each product to the photo, or to photo and words where the model has read
    these: weighted, after both have been standardised over the pool, because similarities of texts
    to pictures are far lower than those of two pictures."""
    to_photo = np.array([each.hit.similarity for each in pool])
    if not pool or any(each.text_similarity is None for each in pool):
        return list(to_photo)
    to_words = np.array([each.text_similarity for each in pool], dtype=np.float64)
    fused = (1 - weight) * _standardised(to_photo) + weight * _standardised(to_words)
    return list(fused)


def _standardised(values: np.ndarray) -> np.ndarray:
    """Values with mean 0 and a third as standard deviation, so that most lie between -1 and 1."""
    spread = float(values.std())
    return np.zeros_like(values) if spread < 1e-9 else (values - values.mean()) / (3 * spread)


def _tokens(text: str) -> frozenset[str]:
    """The words of a text in lower case and in the singular."""
    return frozenset(map(_singular, re.findall(r"\w+", text.casefold())))


def _singular(word: str) -> str:
    """A word without the ending of an English plural."""
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
