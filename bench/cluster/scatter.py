"""A queueing model of scatter and gather: a query waits for the slowest of its parts.

    python -m bench.cluster.scatter [--parts 1 2 4 8] [--queries 200] [--rounds 5]

It measures what the model takes from outside, the scatter and gather alone: all parts are actors of
one node of a cluster of this machine that answer at once with 100 nominees, which are merged. It is
done in a thread of its own, as a search does, and without. Counts of parts and both ways are
measured in turn, in rounds; ratios are of the medians of a round.

The model: queries arrive at random (Poisson). Each asks all parts; a part has some processors,
which serve its queries in order. The time of a query is that of the last part, each with its call,
and of merging.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.cluster.actors import Actors, attach, bounded
from app.index.parted_index import PartAnswer, merged
from bench.harness.side_by_side import BenchmarkReport, Measurement, ratio

Z99 = 2.326
"""The 99th percentile of the normal distribution."""

NOMINEES = 100
WAIT_S = 60.0
"""Parts are waited for, however busy the machine is."""

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


class AnsweringPart:
    """An actor in place of a part, which has found something before it was asked."""

    def __init__(self, number: int) -> None:
        random = np.random.default_rng(number)
        similarities = np.sort(random.random((1, NOMINEES), np.float32))[:, ::-1]
        ids = number * NOMINEES + np.arange(NOMINEES, dtype=np.int64)[None]
        self._answer = (np.ascontiguousarray(similarities), ids)

    def search(self, queries: NDArray[np.float32]) -> PartAnswer:
        return self._answer


def main() -> None:
    options = arguments()
    report = BenchmarkReport("cluster_scatter", f"Scatter and gather of {NOMINEES} nominees a part")
    with a_cluster(max(options.parts)) as actors:
        handles = [
            actors.start(f"answering-{number}", AnsweringPart, number, concurrent=4)
            for number in range(max(options.parts))
        ]
        measure(report, actors, handles, options)
    report.write()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--queries", type=int, default=200, help="of each in a round")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


@contextmanager
def a_cluster(actors: int) -> Iterator[Actors]:
    """A cluster of one node with room for so many actors, to which this process is connected."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    ray.init(num_cpus=actors, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield attach("", 1.0)
    finally:
        ray.shutdown()


def measure(
    report: BenchmarkReport, actors: Actors, handles: list[Any], options: argparse.Namespace
) -> None:
    times: dict[tuple[int, bool], list[list[float]]] = {}
    for number in range(1 + options.rounds):
        for count in options.parts:
            for own_thread in (True, False):
                ask = partial(gather, actors, handles[:count])
                asked = partial(bounded, ask, WAIT_S) if own_thread else ask
                measured = [milliseconds(asked) for _ in range(options.queries)]
                if number:  # the first round starts processes
                    times.setdefault((count, own_thread), []).append(measured)
    medians = {
        each: Measurement(tuple(float(np.median(of)) for of in rounds), "ms")
        for each, rounds in times.items()
    }
    fewest = options.parts[0]
    for (count, own_thread), rounds in times.items():
        every = Measurement(tuple(sum(rounds, list[float]())), "ms")
        report.row(
            parts=count, asked="in a thread" if own_thread else "directly",
            p50_ms=every.p50, p99_ms=every.at(99),
            **{f"by_{fewest}_parts": ratio(medians[count, own_thread],
                                           medians[fewest, own_thread])},
            by_directly=ratio(medians[count, own_thread], medians[count, False]),
        )  # fmt: skip


def gather(actors: Actors, handles: list[Any]) -> PartAnswer:
    """The best nominees of all parts."""
    query = np.ones((1, 512), np.float32)
    calls = [actors.call(handle, "search", query) for handle in handles]
    done = actors.wait(calls, WAIT_S)
    assert len(done) == len(calls)
    return merged([actors.result(call) for call in calls], 1, NOMINEES)


def milliseconds(function: partial[PartAnswer]) -> float:
    began = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
