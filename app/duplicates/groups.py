"""The values that folding takes and gives: candidates, groups with evidence, similar pairs."""

from __future__ import annotations

from dataclasses import dataclass

from app.duplicates.evidence import WORDS_AND_PICTURES
from app.types import Product


@dataclass(frozen=True, slots=True)
class FoldCandidate:
    """A product to be folded, and its similarity to the query."""

    product: Product
    similarity: float

    @property
    def sku(self) -> str:
        return self.product.sku


@dataclass(frozen=True, slots=True)
class FoldedCandidate:
    """A candidate listed under its keeper; `matched_by` is the sku the rule compared it with.

    `evidence` is what the fold rests on, `distance` the cosine distance (0 to 2) of the nearest
    pictures of the two; None where one has none to compare.
    """

    candidate: FoldCandidate
    rule: str
    matched_by: str
    evidence: str = WORDS_AND_PICTURES
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Candidates that are one product: the keeper, which is shown, and the others, best first."""

    keeper: FoldCandidate
    folded: tuple[FoldedCandidate, ...] = ()

    @property
    def skus(self) -> tuple[str, ...]:
        return self.keeper.sku, *(fold.candidate.sku for fold in self.folded)


@dataclass(frozen=True, slots=True)
class SimilarPair:
    """Products of two groups whose words agree by `rule`, and the `reason` why they are not one.

    `distance` is that of their nearest pictures (cosine, 0 to 2), None without pictures.
    """

    product: Product
    other: Product
    rule: str
    reason: str
    distance: float | None


def keeper_order(candidate: FoldCandidate) -> tuple[float, int, str]:
    """Sort key of the candidates of a group: the most similar, then the newest, then the first by
    sku."""
    year = candidate.product.year
    return -candidate.similarity, -year if year is not None else 1, candidate.sku
