"""How an index is made: flat for few rows, beyond that inverted lists of the rows themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from app import clusters
from app.ann import AnnIndex, Ids, faiss
from app.types import Rows, Vectors
from app.vectors import unit

FLAT_ROWS = 5_000
"""Up to this many rows an exact scan takes 0.2 ms at most, misses nothing and is made in no time.
With 10,000 it takes 0.7 ms where inverted lists take 0.03 to 0.24, and with 20,000 1.6 where they
take 0.04 to 0.24, for half a second to a second of training (bench/flat.py, 512 dimensions)."""


def build(ids: Ids, vectors: Rows) -> AnnIndex:
    """An index over unit vectors of shape (n, dim), float16 or float32, by inner product.

    Flat while that is fast enough, beyond that inverted lists of 16-bit vectors.
    """
    if len(ids) <= FLAT_ROWS:
        return _flat(ids, vectors)
    return _inverted_lists(ids, vectors, clusters.centres(vectors, int(4 * len(ids) ** 0.5)))


def _flat(ids: Ids, vectors: Rows) -> AnnIndex:
    index = faiss().IndexIDMap2(faiss().IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(unit(vectors), ids)
    return AnnIndex(index, "flat")


def _inverted_lists(ids: Ids, vectors: Rows, centres: Vectors) -> AnnIndex:
    """Each row in the list of its nearest centre, as the 16-bit numbers that it is."""
    lists, dim = centres.shape
    quantizer = faiss().IndexFlatIP(dim)
    quantizer.add(centres)
    index = faiss().IndexIVFScalarQuantizer(
        quantizer, dim, lists, faiss().ScalarQuantizer.QT_fp16, faiss().METRIC_INNER_PRODUCT
    )
    index.by_residual = False
    index.is_trained = True
    _fill(index, ids, vectors, clusters.nearest(vectors, centres))
    # The index now owns what Python would otherwise free under it.
    index.own_fields = True
    quantizer.this.disown()
    return AnnIndex(index, "ivf", {"nlist": lists, "nprobe": {}})


def _fill(index: Any, ids: Ids, vectors: Rows, labels: clusters.Labels) -> None:
    """One list after the other, each at once, so that none has more room than rows."""
    pointer = faiss().swig_ptr
    order, bounds = clusters.members(labels, index.nlist)
    for number in range(index.nlist):
        mine = order[bounds[number] : bounds[number + 1]]
        names, codes = ids[mine], vectors[mine].astype(np.float16, copy=False).view(np.uint8)
        if len(mine):
            index.invlists.add_entries(number, len(mine), pointer(names), pointer(codes))
    index.ntotal = len(ids)
