"""How many products a page retrieves, and when it is given up with the reason."""

from __future__ import annotations

import time

from app.search.dedup import needs_dedup
from app.types import Query

GROWTH_FACTOR = 4
"""Each further retrieval asks for this many times as many products as the one before."""

FOLD_FACTOR = 5
"""A page that only folds is retrieved twice at most: the second time this many times as many
products. Where hundreds of listings fold into less than a page, it then ends with the reason, so
that such a catalogue does not make searches slow; the next page goes on after them."""

MIN_DEDUPLICATED = 20
"""Products that are retrieved at least where duplicates are folded or dropped, and 5/3 of those of
the page: two in five may be dropped before more are needed."""

MAX_CANDIDATES = 5_000
"""Products that a page retrieves and folds at most, after which it ends with the reason: a query
that drops nearly all of them must not load the whole catalogue."""

WIDE_DISTANCE = 0.5
"""From this near-duplicate distance on a page is retrieved twice at most too: so far apart are most
products of a catalogue, so that nearly all would be retrieved and dropped."""

LARGEST_DISTANCE = 2.0
"""The largest cosine distance. Near-duplicates up to it are all products but the first, or all; a
page is retrieved once."""

PAGE_CPU_S = 0.25
"""Seconds of processor time of its thread for which a page goes on with retrieving, as far as that
can be foreseen; then it ends with the reason. A second retrieval is always made."""


def first_size(query: Query, k: int) -> int:
    """How many products are retrieved first for a page of `k`."""
    return max(k + 2 * k // 3, MIN_DEDUPLICATED) if needs_dedup(query) else k


class PageBudget:
    """How many products a page retrieves, and whether it may go on. Counts processor time: that of
    other searches is none of its."""

    def __init__(self, query: Query, k: int, *, by_words: bool) -> None:
        """`by_words` is whether words of the catalogue or the model order the products."""
        self.size = first_size(query, k)
        distances = [each for each in (query.near_query, query.near_match) if each is not None]
        widest = max(distances, default=0.0)
        self._factor, self._most = GROWTH_FACTOR, MAX_CANDIDATES
        if widest >= LARGEST_DISTANCE:
            self._most = self.size
        elif widest >= WIDE_DISTANCE or (query.fold and not (distances or by_words)):
            self._factor, self._most = FOLD_FACTOR, min(FOLD_FACTOR * self.size, MAX_CANDIDATES)
        self._began = time.thread_time()
        self._rounds = 0

    def is_spent(self) -> bool:
        """To be asked in each round: whether there were as many products as allowed, or a further
        round would exceed PAGE_CPU_S, if it takes GROWTH_FACTOR times as long as all before."""
        self._rounds += 1
        foreseen_s = GROWTH_FACTOR * (time.thread_time() - self._began)
        return self.size >= self._most or (self._rounds > 1 and foreseen_s > PAGE_CPU_S)

    def grow(self) -> None:
        """Retrieve more products in the next round."""
        larger = self._factor * self.size
        # A last retrieval of a few more would repeat nearly all.
        self.size = max(self.size, self._most) if 2 * larger > self._most else larger
