"""What besides words shows that two products are one: their pictures, and how near they must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.types import Calibration, EmbeddingRows, Model, Product

WORDS_AND_PICTURES = "words and pictures"
NO_PICTURE = "words, no picture to compare"
VERDICT = "verdict"
GTIN = "gtin"
MPN = "mpn"
ITEM_GROUP = "item group"
"""What a fold rests on."""

OTHER_PICTURES = "other pictures"
NOTHING_TO_COMPARE = "no picture to compare"
OTHER_GTIN = "another gtin"
"""Why products whose words agree are not one; VERDICT is another reason."""

ROUNDING = 1e-6
"""Tolerance of a cut: PostgreSQL sums float32, this module float64."""

BLOCK = 512
"""Products whose distances to all others with the same words are computed at once."""

DEFAULT_CUT = 0.1
"""Cosine distance of nearest pictures up to which products with the same words are one, under a
model that is not calibrated and has no cut in MODEL_CUTS: about the distance of two photos of one
object under the models in use."""

MODEL_CUTS: Mapping[tuple[str, str], float] = {
    ("embedded", "1-"): 0.25,
    ("embedded", "2-"): 0.2,
}
"""Cuts while nothing is calibrated, by the beginnings of the model's name and revision. Fitted by
`python -m bench.search.fold_cut`; decision 33 names the data and the result of the cross-fit. Other
versions of the embedded encoder take DEFAULT_CUT until they are fitted."""

GENERIC_SHARE = 0.625
"""Where the words are generic, pictures must be nearer by this factor: such words make it less
likely that two products are one. Of models without one in GENERIC_SHARES."""

GENERIC_SHARES: Mapping[tuple[str, str], float] = {("embedded", "2-"): 0.75}
"""Factors in the place of GENERIC_SHARE, by the beginnings of the model's name and revision. Fitted
with MODEL_CUTS."""

Distances = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FoldCuts:
    """The cosine distance (0 to 2) up to which the pictures of two products agree.

    It is the calibrated cut of "same product": of the category, else of the whole catalogue (None
    in `calibrations`), else `default`. Where the words are generic it is `generic_share` of that.
    """

    default: float = DEFAULT_CUT
    calibrations: Mapping[str | None, Calibration] = field(default_factory=dict)
    generic_share: float = GENERIC_SHARE

    @classmethod
    def of_model(cls, model: Model, calibrations: Sequence[Calibration]) -> FoldCuts:
        """The cuts of a model."""
        return cls(
            default_cut(*model.network),
            {row.category: row for row in calibrations},
            generic_share(*model.network),
        )

    def cut(self, category: str | None, *, generic: bool) -> float:
        """The cut of two products of one category; None: of different categories, or of none."""
        rows = (self.calibrations.get(name) for name in (category or None, None))
        cuts = (row.same_product.distance for row in rows if row is not None)
        known = next((cut for cut in cuts if cut is not None), self.default)
        return known * (self.generic_share if generic else 1.0)

    def matrix(
        self, first: Sequence[Product], second: Sequence[Product], *, generic: bool
    ) -> Distances:
        """The cut of each product of the first with each of the second, shape (first, second)."""
        names = sorted({each.category or "" for each in (*first, *second)})
        cuts = np.full((len(names), len(names)), self.cut(None, generic=generic))
        for number, name in enumerate(names):
            cuts[number, number] = self.cut(name, generic=generic)
        rows, columns = (
            [names.index(each.category or "") for each in side] for side in (first, second)
        )
        return np.asarray(cuts[np.ix_(rows, columns)])


@dataclass(frozen=True, slots=True)
class PictureEvidence:
    """The embeddings of products by sku, arrays (pictures, dim) of at least one row, and the cuts.

    Products without a picture to compare are left out.
    """

    vectors: Mapping[str, EmbeddingRows] = field(default_factory=dict)
    cuts: FoldCuts = field(default_factory=FoldCuts)
    _single: dict[str, tuple[NDArray[np.float64], float] | None] = field(
        default_factory=dict, init=False, compare=False
    )

    def distance(self, sku: str, other: str) -> float:
        """The cosine distance (0 to 2) of the nearest pictures of two products that have some; to
        the digit that of `nearest_distances`."""
        one, two = self._only(sku), self._only(other)
        if one is None or two is None:
            return float(nearest_distances([self.vectors[sku]], [self.vectors[other]])[0, 0])
        # The calls of numpy that matrices need take longer than all of this.
        similarity = float(one[0] @ two[0]) / math.sqrt(one[1] * two[1])
        return min(max(1.0 - similarity, 0.0), 2.0)

    def _only(self, sku: str) -> tuple[NDArray[np.float64], float] | None:
        """The embedding of a product with one picture, (dim,), and its squared length, kept for
        further comparisons; None for a product with several."""
        if sku not in self._single:
            rows = self.vectors[sku]
            found = None
            if len(rows) == 1:
                vector = rows[0].astype(np.float64)
                found = vector, float(vector @ vector)
            self._single[sku] = found
        return self._single[sku]


LoadPictures = Callable[[Sequence[str]], PictureEvidence]
"""Reads the pictures of the products with these skus."""


def no_pictures(_: Sequence[str]) -> PictureEvidence:
    """No product has a picture to compare."""
    return PictureEvidence()


def default_cut(name: str, revision: str) -> float:
    """The cut of a model while it is not calibrated."""
    return _of_model(MODEL_CUTS, name, revision, DEFAULT_CUT)


def generic_share(name: str, revision: str) -> float:
    """The factor of a model's cut where words are generic."""
    return _of_model(GENERIC_SHARES, name, revision, GENERIC_SHARE)


def _of_model(
    values: Mapping[tuple[str, str], float], name: str, revision: str, default: float
) -> float:
    for (name_start, revision_start), value in values.items():
        if name.startswith(name_start) and revision.startswith(revision_start):
            return value
    return default


def nearest_distances(first: Sequence[EmbeddingRows], second: Sequence[EmbeddingRows]) -> Distances:
    """Cosine distances (0 to 2) of the nearest pictures of products, shape (first, second).

    Each product is an array (pictures, dim) with at least one row. Vectors of about length 1 that
    hold float16 values have the same distance to the digit whatever else is compared with them:
    their products are multiples of 2^-48, so that float64 adds them without rounding.
    """
    (rows, row_starts), (columns, column_starts) = _stacked(first), _stacked(second)
    similarities = rows @ columns.T
    similarities /= np.sqrt(np.multiply.outer(_squares(rows), _squares(columns)))
    if len(rows) > len(first):
        similarities = np.maximum.reduceat(similarities, row_starts, axis=0)
    if len(columns) > len(second):
        similarities = np.maximum.reduceat(similarities, column_starts, axis=1)
    return np.clip(1.0 - similarities, 0.0, 2.0)


def distance_blocks(
    first: Sequence[EmbeddingRows], second: Sequence[EmbeddingRows]
) -> Iterator[tuple[int, Distances]]:
    """`nearest_distances` in blocks of rows: the number of the first row, and (block, second)."""
    for start in range(0, len(first), BLOCK):
        yield start, nearest_distances(first[start : start + BLOCK], second)


def _stacked(products: Sequence[EmbeddingRows]) -> tuple[Distances, NDArray[np.intp]]:
    """All rows of the products, float64, and where each product begins."""
    rows = np.concatenate(products).astype(np.float64)
    counts = [len(each) for each in products]
    return rows, np.concatenate([[0], np.cumsum(counts[:-1])]).astype(np.intp)


def _squares(rows: Distances) -> NDArray[np.float64]:
    """The squared length of each row, shape (n,)."""
    squares: NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows)
    return squares
