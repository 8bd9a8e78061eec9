"""In which order pairs of products are reviewed: by what shows that the products are one.

Near pictures alone show little where a shop photographs all its goods alike: of 24,385 pairs within
a distance of 0.1, most were the same pose with another shirt.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from app.duplicates.normalization import Identity, identity
from app.duplicates.rules import same_product
from app.types import Product

LEAST_COMMON = 0.5
"""Share of common words, of all words of both titles, from which titles are alike."""


class PairEvidence(IntEnum):
    """What two products have in common, the strongest evidence first."""

    PICTURE_AND_WORDS = 0
    """One picture file, or near pictures, and words that agree by a rule."""
    PICTURE_FILE = 1
    WORDS = 2
    """Words that agree by a rule; the pictures are apart, or there are none."""
    LIKE_TITLES = 3
    """Near pictures and titles that are alike; no brand, category or colour differs."""
    PICTURES_ALONE = 4
    """Near pictures of products whose words differ."""


def evidence(
    a: Product,
    b: Product,
    *,
    shares_picture: bool,
    near: bool,
    min_spelling_similarity: float,
) -> PairEvidence:
    """What two products have in common; `near` says whether their nearest pictures are near."""
    if same_product(a, b, min_spelling_similarity) is not None:
        pictures = shares_picture or near
        return PairEvidence.PICTURE_AND_WORDS if pictures else PairEvidence.WORDS
    if shares_picture:
        return PairEvidence.PICTURE_FILE
    alike = _like_titles(identity(a), identity(b))
    return PairEvidence.LIKE_TITLES if alike else PairEvidence.PICTURES_ALONE


def _like_titles(a: Identity, b: Identity) -> bool:
    columns = ((a.brand, b.brand), (a.category, b.category), (a.colour, b.colour))
    if any(one and other and one != other for one, other in columns):
        return False
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
        """Whether only the pictures speak for it."""
        return self.evidence is PairEvidence.PICTURES_ALONE
