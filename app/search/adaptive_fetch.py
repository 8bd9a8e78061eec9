"""What recent searches teach about the size of the next fetch; every lesson is forgotten again."""

from __future__ import annotations

from dataclasses import dataclass

RETRIAL_SEARCHES = 64
"""Searches after which a smaller fetch is tried again. If it is still too small, one search in this
many pays for a second round."""


@dataclass(slots=True)
class Widening:
    """Factor of the first fetch round, from 1 to `limit`.

    Doubled when only a larger round was complete, halved after RETRIAL_SEARCHES searches in a row
    whose first round was. Concurrent searches may lose an update: it changes the time of a search,
    never its result.
    """

    limit: int
    factor: int = 1
    _sufficed: int = 0

    def record(self, *, sufficed: bool) -> None:
        """A search was complete: `sufficed` is whether its first round was."""
        if not sufficed:
            self.factor, self._sufficed = min(2 * self.factor, self.limit), 0
            return
        self._sufficed += 1
        if self._sufficed >= RETRIAL_SEARCHES:
            self.factor, self._sufficed = max(self.factor // 2, 1), 0


@dataclass(slots=True)
class Skipping:
    """Whether to leave out a round that failed lately: for the next RETRIAL_SEARCHES searches."""

    _left: int = 0

    def failed(self) -> None:
        """The round did not find enough."""
        self._left = RETRIAL_SEARCHES

    def skips(self) -> bool:
        """Whether this search leaves the round out; to be asked once a search."""
        if self._left == 0:
            return False
        self._left -= 1
        return True
