"""In which order pairs of products are reviewed: by what shows that the products are one.

Near pictures alone show little where a shop photographs all its goods alike: of 24,385 pairs within
a distance of 0.1, most were the same pose with another shirt. Distances relative to those of the
further neighbours, and whether two are each other's nearest, were tried and told hardly more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from app.duplicates.general_words import is_generic
from app.duplicates.identifiers import identifiers
from app.duplicates.normalization import Identity, identity
from app.duplicates.word_rules import same_product
from app.types import Product

LEAST_COMMON = 0.5
"""Share of common words, of all words of both titles, from which titles are alike."""


class PairEvidence(IntEnum):
    """What two products have in common, the strongest evidence first.

    Near pictures whose words contradict them come after those whose words do not: a studio's shirts
    in two colours are nearer to each other than two photos of one shirt.
    `bench/search/pair_queue.py` measures the order.
    """

    PICTURE_AND_WORDS = 0
    """One picture file, or near pictures, and words that agree by a rule."""
    PICTURE_FILE = 1
    """One picture file; nothing that both have differs."""
    WORDS = 2
    """Telling words that agree by a rule; the pictures are apart, or there are none."""
    LIKE_TITLES = 3
    """Near pictures and titles that are alike; nothing that both have differs."""
    NEAR_PICTURES = 4
    """Near pictures; nothing that both have differs."""
    OTHER_FIELDS = 5
    """Near pictures, or one picture file; brand, category, colour or gtin differs."""
    GENERIC_WORDS = 6
    """Words that agree by a rule and describe many articles; the pictures are apart."""


def evidence(
    a: Product,
    b: Product,
    *,
    shares_picture: bool,
    near: bool,
    min_spelling_similarity: float,
) -> PairEvidence:
    """What two products have in common; `near` says whether their nearest pictures are near."""
    one, other = identity(a), identity(b)
    pictures = shares_picture or near
    if same_product(a, b, min_spelling_similarity) is not None:
        if pictures:
            return PairEvidence.PICTURE_AND_WORDS
        generic = is_generic(one.key) or is_generic(other.key)
        return PairEvidence.GENERIC_WORDS if generic else PairEvidence.WORDS
    if _differ(a, b, one, other):
        return PairEvidence.OTHER_FIELDS
    if shares_picture:
        return PairEvidence.PICTURE_FILE
    alike = _like_titles(one, other)
    return PairEvidence.LIKE_TITLES if alike else PairEvidence.NEAR_PICTURES


def _differ(a: Product, b: Product, one: Identity, other: Identity) -> bool:
    """Whether a brand, category, colour or gtin that both products have differs."""
    gtins = (identifiers(a, one.key).gtin, identifiers(b, other.key).gtin)
    columns = ((one.brand, other.brand), (one.category, other.category), (one.colour, other.colour))
    return any(ours and theirs and ours != theirs for ours, theirs in (*columns, gtins))


def _like_titles(a: Identity, b: Identity) -> bool:
    ours, theirs = set(a.words), set(b.words)
    return bool(ours & theirs) and len(ours & theirs) >= LEAST_COMMON * len(ours | theirs)


@dataclass(frozen=True, slots=True, order=True)
class WaitingPair:
    """A pair that waits to be reviewed; the smallest is the next. `distance` (0 to 2) is that of
    the nearest pictures, 3 without pictures."""

    evidence: PairEvidence
    distance: float
    skus: tuple[str, str]

    @property
    def is_weak(self) -> bool:
        """Whether it waits until the catalogue is scanned for better ones."""
        return self.evidence >= PairEvidence.NEAR_PICTURES
