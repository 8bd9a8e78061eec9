"""A queueing model of scatter and gather: a query waits for the slowest of its parts.

Queries arrive at random (Poisson). Each asks all parts; a part has some processors, which serve its
queries in order. The time of a query is that of the last part, each with its call, and of merging.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z99 = 2.326
"""The 99th percentile of the normal distribution."""

SEARCH_SPREAD = 1.75
"""The p99 of a search of an index by its p50: 0.36 and 0.206 ms among a million
(docs/benchmarks.md, comparison)."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration with a lognormal distribution, in ms."""

    p50: float
    p99: float

    def draw(self, random: np.random.Generator, *shape: int) -> NDArray[np.float64]:
        if self.p99 <= self.p50:
            return np.full(shape, self.p50)
        sigma = np.log(self.p99 / self.p50) / Z99
        return np.asarray(self.p50 * np.exp(sigma * random.standard_normal(shape)))

    @property
    def mean(self) -> float:
        sigma = np.log(max(self.p99 / self.p50, 1.0)) / Z99
        return float(self.p50 * np.exp(sigma**2 / 2))


@dataclass(frozen=True, slots=True)
class Parts:
    """So many parts, each searched by `processors`, with the `call` of one and merging `merge_ms`
    of each."""

    count: int
    processors: int
    search: Duration
    call: Duration
    merge_ms: float


def search_of(p50_ms: float) -> Duration:
    """A search of a part, with the measured spread."""
    return Duration(p50_ms, p50_ms * SEARCH_SPREAD)


def rate_at(parts: Parts, load: float) -> float:
    """Queries a second at which the processors of each part are busy for a share `load` (0 to
    1)."""
    return 1000 * load * parts.processors / parts.search.mean


def times(parts: Parts, rate: float, queries: int, seed: int) -> NDArray[np.float64]:
    """Milliseconds of each of so many queries that arrive at a rate a second, after as many tenths
    that fill the queues."""
    random = np.random.default_rng(seed)
    warm = queries // 10
    arrived = np.cumsum(random.exponential(1000 / rate, warm + queries))
    served = parts.search.draw(random, warm + queries, parts.count)
    called = parts.call.draw(random, warm + queries, parts.count)
    free = np.zeros((parts.count, parts.processors))  # when each processor of a part is free again
    each, done = np.arange(parts.count), np.empty((warm + queries, parts.count))
    for number, arrival in enumerate(arrived):
        first = free.argmin(axis=1)
        ends = np.maximum(free[each, first], arrival) + served[number]
        free[each, first] = ends
        done[number] = ends - arrival
    return np.asarray((done + called).max(axis=1)[warm:] + parts.merge_ms * parts.count)
