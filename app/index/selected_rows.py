"""SelectedRows: a copy of the rows of an index that pass a filter, searched without testing ids."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from app.index.faiss_library import faiss
from app.index.id_selectors import IdSelector

ID_BYTES = 8

LIST_BYTES = 160
"""Memory of an inverted list without rows, which is what a copy of few rows of a large index mostly
consists of."""


class SelectedRows:
    """The selected rows of an index with inverted lists, in lists of their own.

    A search of it finds what a search of the index with the selector finds, to the digit, but does
    not decide for each row of the index whether it is selected: a processor mostly guesses that
    wrong. It uses the centroids of the index, so it is searched only while the index exists.
    """

    def __init__(self, index: Any, selector: IdSelector) -> None:
        """`index` is a FAISS index of a kind that `can_copy` accepts."""
        self._index = weakref.ref(index)
        self.rows = _empty_like(index)
        lists, code_size = index.invlists, index.invlists.code_size
        for number in range(index.nlist):
            size = lists.list_size(number)
            ids = faiss().rev_swig_ptr(lists.get_ids(number), size) if size else np.empty(0, int)
            selected = selector.contains(ids)
            if not (count := int(selected.sum())):
                continue
            codes = faiss().rev_swig_ptr(lists.get_codes(number), size * code_size)
            chosen = np.ascontiguousarray(codes.reshape(size, code_size)[selected])
            chosen_ids = np.ascontiguousarray(ids[selected])
            pointer = faiss().swig_ptr
            self.rows.invlists.add_entries(number, count, pointer(chosen_ids), pointer(chosen))
            self.rows.ntotal += count
        self.nbytes = bytes_needed(index, self.rows.ntotal)

    def are_of(self, index: Any) -> bool:
        """Whether these are rows of this FAISS index."""
        return self._index() is index


def can_copy(index: Any) -> bool:
    """Whether the rows of a FAISS index can be copied."""
    kinds = (faiss().IndexIVFRaBitQ, faiss().IndexIVFScalarQuantizer)
    return isinstance(index, kinds)


def bytes_needed(index: Any, rows: int) -> int:
    """The memory of a copy of so many rows of a FAISS index."""
    return int(rows * (index.code_size + ID_BYTES) + index.nlist * LIST_BYTES)


def _empty_like(index: Any) -> Any:
    """An index without rows, of the kind of a FAISS index and with its centroids."""
    if isinstance(index, faiss().IndexIVFRaBitQ):
        empty = faiss().IndexIVFRaBitQ(
            index.quantizer, index.d, index.nlist, index.metric_type, True, index.rabitq.nb_bits
        )
        empty.qb = index.qb
    else:
        empty = faiss().IndexIVFScalarQuantizer(
            index.quantizer, index.d, index.nlist, index.sq.qtype, index.metric_type
        )
        empty.by_residual = index.by_residual
    empty.is_trained, empty.own_fields = True, False
    return empty
