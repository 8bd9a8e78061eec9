"""SelectedVectors: the vectors that pass a filter, 8 bits a number, all of which are compared."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.index.faiss_library import faiss
from app.index.id_selectors import ExcludedIds, Ids
from app.types import EmbeddingRows, Vectors

ID_BYTES = 8

LARGEST = 127
"""The largest 8-bit number, which stands for the largest number of all vectors."""


class SelectedVectors:
    """The selected rows of a compressed index with their vectors from the table.

    The codes of a compressed index are so coarse that what passes a filter, and is far from the
    query, needs hundreds of nominees. 8 bits err by some thousandths where those of 2 bits err by
    a tenth, and a search compares all rows in a fifth of the time.
    """

    def __init__(self, index: Any, blocks: Sequence[tuple[Ids, EmbeddingRows]]) -> None:
        """`index` is the FAISS index whose rows they are; `blocks` are ids (n,) and unit vectors
        (n, dim)."""
        self._index = weakref.ref(index)
        dim = int(index.d)
        kind = faiss().ScalarQuantizer.QT_8bit_direct_signed
        self._codes = faiss().IndexScalarQuantizer(dim, kind, faiss().METRIC_INNER_PRODUCT)
        self._rows = faiss().IndexIDMap(self._codes)
        self._scale = _scale([rows for _, rows in blocks])
        for ids, rows in blocks:
            self._rows.add_with_ids(_rounded(rows, self._scale), ids)
        self.nbytes = bytes_needed(sum(len(ids) for ids, _ in blocks), dim)

    def are_of(self, index: Any) -> bool:
        """Whether these are rows of this FAISS index."""
        return self._index() is index

    def search(
        self, queries: Vectors, k: int, excluded: ExcludedIds | None
    ) -> tuple[NDArray[np.float32], Ids]:
        """Similarities and ids, each of shape (len(queries), k); missing ones have id -1."""
        only = None if excluded is None else excluded.faiss_selector
        parameters = None if only is None else faiss().SearchParameters(sel=only)
        scale = _scale([queries])  # the numbers of the query are rounded too
        similarities, ids = self._rows.search(_rounded(queries, scale), k, params=parameters)
        return similarities / np.float32(self._scale * scale), ids


def _scale(blocks: Sequence[EmbeddingRows]) -> float:
    """What makes the largest number of all vectors LARGEST."""
    largest = max((float(np.abs(rows).max(initial=0)) for rows in blocks), default=0.0)
    return LARGEST / (largest or 1.0)


def _rounded(rows: EmbeddingRows, scale: float) -> Vectors:
    """Vectors as whole numbers, float32, as FAISS takes them."""
    scaled: Vectors = rows.astype(np.float32) * np.float32(scale)
    np.rint(scaled, out=scaled)
    return scaled


def bytes_needed(rows: int, dim: int) -> int:
    """The memory of so many vectors."""
    return rows * (dim + ID_BYTES)
