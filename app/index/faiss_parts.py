"""Parts of an index in inverted lists: vectors encoded elsewhere, to be merged into it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.index.faiss_index import AnnIndex
from app.index.faiss_library import faiss

PartBytes = NDArray[np.uint8]


def serialized(part: AnnIndex) -> PartBytes:
    """The inverted lists of an index as bytes, without its centroids, which it then lacks."""
    index = part.faiss_index
    centroids, index.own_fields = index.quantizer, False
    empty = faiss().IndexFlatIP(index.d)
    index.quantizer = empty
    data: PartBytes = faiss().serialize_index(index)
    index.quantizer, index.own_fields = centroids, True
    return data


def merge(index: AnnIndex, data: PartBytes) -> None:
    """Add the vectors of a part that was filled with the same centroids and code.

    The index must not be in use yet.
    """
    part = faiss().deserialize_index(data)
    # `merge_from` of the index would compare the centroids, which the part lacks.
    index.faiss_index.invlists.merge_from(part.invlists, 0)
    index.faiss_index.ntotal += part.ntotal
