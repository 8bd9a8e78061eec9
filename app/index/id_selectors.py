"""Restricts a search of an index to some ids, or to all but some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.index.faiss_library import faiss

if TYPE_CHECKING:
    from app.index.selected_rows import SelectedRows
    from app.index.selected_vectors import SelectedVectors

BITMAP_BITS_PER_ID = 256
"""A bitmap of ids is used up to this many bits per selected id; above, a hash set."""

Ids = NDArray[np.int64]
"""Picture ids."""


class IdSelector:
    """Restricts a search to some ids, shape (n,), int64; `nbytes` is the memory it takes.

    All lists are probed: testing an id costs a hundredth of computing a distance, so an exhaustive
    search among few selected rows is fast. `copied` are the rows of an index that are selected, if
    they were copied, or their vectors.
    """

    copied: SelectedRows | SelectedVectors | None = None

    def __init__(self, ids: Ids) -> None:
        highest = int(ids.max(initial=0))
        if highest <= BITMAP_BITS_PER_ID * max(len(ids), 4096):
            passes = np.zeros(highest + 1, dtype=bool)
            passes[ids] = True
            self._bits: NDArray[np.uint8] | None = np.packbits(passes, bitorder="little")
            self.faiss_selector: Any = faiss().IDSelectorBitmap(self._bits)
            self.nbytes = self._bits.nbytes
        else:
            self._bits, self._ids = None, np.sort(ids)
            self.faiss_selector = faiss().IDSelectorBatch(ids)
            self.nbytes = (64 + 8) * len(ids)  # approximate size of a C++ hash set, and the ids

    @classmethod
    def of_bits(cls, bits: NDArray[np.uint8], first: int) -> IdSelector:
        """The ids whose bits are set, in bytes of eight ids each, from the byte `first` on."""
        selector = cls.__new__(cls)
        # Zeros take no memory until they are written.
        selector._bits = np.zeros(first + len(bits), np.uint8)
        selector._bits[first:] = bits
        selector.faiss_selector = faiss().IDSelectorBitmap(selector._bits)
        selector.nbytes = len(bits)
        return selector

    def within(self, first: int, last: int) -> SentIds:
        """The selected ids from `first` to `last`, to be sent to another process."""
        if self._bits is None:
            return SentIds(None, 0, _between(self._ids, first, last))
        begin = first >> 3
        bits = self._bits[begin : (last >> 3) + 1].copy()
        if len(bits):
            bits[0] &= 0xFF << (first & 7) & 0xFF
        if len(bits) == (last >> 3) + 1 - begin:
            bits[-1] &= 0xFF >> (7 - (last & 7))
        return SentIds(bits, begin, None)

    @property
    def ids(self) -> Ids:
        """The selected ids in order, shape (n,)."""
        if self._bits is None:
            return self._ids
        return np.flatnonzero(np.unpackbits(self._bits, bitorder="little"))

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        """Whether each of these ids, shape (n,), is selected."""
        if self._bits is None:
            return np.isin(ids, self._ids)
        places = ids >> 3
        bits = self._bits[np.minimum(places, len(self._bits) - 1)] >> (ids & 7) & 1
        return np.asarray((bits == 1) & (places < len(self._bits)))


@dataclass(frozen=True, slots=True)
class SentIds:
    """Selected ids in the smaller of two forms: bits, from the byte `begin` on, or the ids, shape
    (n,), sorted."""

    bits: NDArray[np.uint8] | None
    begin: int
    ids: Ids | None

    @property
    def nbytes(self) -> int:
        """Bytes that are sent."""
        return sum(each.nbytes for each in (self.bits, self.ids) if each is not None)

    def selector(self) -> IdSelector:
        """The selector of these ids."""
        if self.bits is not None:
            return IdSelector.of_bits(self.bits, self.begin)
        assert self.ids is not None
        return IdSelector(self.ids)


class ExcludedIds:
    """Leaves some ids, shape (n,), int64, out of a search; its length is their number.

    They need not be in the index. An exhaustive search takes longer by a twentieth of a
    microsecond a row at most, whatever their number.
    """

    def __init__(self, ids: Ids) -> None:
        self.ids = np.unique(ids)
        self._batch = faiss().IDSelectorBatch(self.ids)
        self.faiss_selector: Any = faiss().IDSelectorNot(self._batch)

    def __len__(self) -> int:
        return len(self.ids)

    def within(self, first: int, last: int) -> Ids | None:
        """Those from `first` to `last`, None if there are none."""
        own = _between(self.ids, first, last)
        return own if len(own) else None


def _between(ids: Ids, first: int, last: int) -> Ids:
    """Those of sorted ids from `first` to `last`."""
    return ids[np.searchsorted(ids, first) : np.searchsorted(ids, last, side="right")]


def combined(selector: IdSelector | None, excluded: ExcludedIds | None) -> Any:
    """FAISS's selector of the ids that are selected and not excluded; None if all are."""
    if selector is None or excluded is None:
        only = selector or excluded
        return only and only.faiss_selector
    return faiss().IDSelectorAnd(selector.faiss_selector, excluded.faiss_selector)
