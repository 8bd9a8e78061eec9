"""Concurrent users: closed-loop load on one SearchService, within and beyond its capacity.

    python -m bench.search.users --rows 100000

Each user starts the next search as soon as the previous one returns. Measured alternately: pictures
encoded in batches, sequentially, and without batching; and vectors, for the search without an
encoder. Then an overload, in which searches that wait too long are refused, with the latency of a
single user before and after it.

On a busy machine an alternative with more threads gets a larger share of the processor. The CPU
milliseconds per search show the cost on an idle machine.
"""

from __future__ import annotations

import argparse
import io
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from app.bootstrap import App
from app.encoders.base import Encoder
from app.encoders.batching import BatcherPool, EncoderQueues
from app.errors import Busy
from app.search.admission import Admission
from app.search.query_encoder import QueryEncoder
from app.search.service import SearchService
from app.types import Query
from bench.data.catalogue import catalogue
from bench.data.vectors import generate_vectors
from bench.harness.side_by_side import BenchmarkReport, Measurement, ratio

USERS = (1, 4, 16, 64)
PICTURES = 60
PHOTO_SIZE = (1152, 864)
OVERLOAD_USERS = 200
OVERLOAD_WAIT_S = 0.5
"""Maximum wait for admission during the overload; shorter than the default to save time."""

UNBATCHED = "pictures, without batching"
VECTORS = "vectors"

SearchRequest = Callable[[SearchService, int], object]


@dataclass
class LoadResult:
    """Results of one load run: latencies in ms, refused searches, errors, wall and CPU seconds."""

    ms: list[float] = field(default_factory=list)
    refused: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    cpu_s: float = 0.0

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_s / max(1, len(self.ms))

    @property
    def per_second(self) -> float:
        return len(self.ms) / self.seconds


class UnbatchedPool(BatcherPool):
    """No batching: every caller runs the encoder itself."""

    def get(self, encoder: Encoder) -> EncoderQueues:
        queue = super().get(encoder)
        queue.pictures.encode = encoder.encode_prepared  # type: ignore[method-assign]
        return queue


def generate_photo(seed: int) -> bytes:
    """A JPEG of one megapixel with smooth colours."""
    small = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(PHOTO_SIZE, Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=88
    )
    return file.getvalue()


def make_service(app: App, queues: BatcherPool, wait_s: float = 60.0) -> SearchService:
    """The SearchService of the app, with other encoder queues and admission."""
    encoder = QueryEncoder(app.encoders, app._decode, app._decode_in_sandbox, queues)
    return SearchService(
        app.search_engine, encoder, app.files, app.settings,
        admission=Admission(app.settings.places, wait_s), fast_path=app.search._fast_path,
    )  # fmt: skip


def run_load(
    search: SearchService, request: SearchRequest, users: int, seconds: float
) -> LoadResult:
    """Run `users` users for `seconds`, and until their last search returns. Each searches at least
    once."""
    result, lock, end = LoadResult(), threading.Lock(), time.perf_counter() + seconds

    def use(number: int) -> None:
        own = LoadResult()
        while True:
            began = time.perf_counter()
            try:
                request(search, number)
                own.ms.append((time.perf_counter() - began) * 1000)
            except Busy:
                own.refused += 1
            except Exception as exc:
                own.errors[f"{type(exc).__name__}: {exc}"[:200]] += 1
            number += users
            if time.perf_counter() >= end:  # checked here, so that each user searches at least once
                break
        with lock:
            result.ms += own.ms
            result.refused += own.refused
            result.errors += own.errors

    threads = [threading.Thread(target=use, args=(number,)) for number in range(users)]
    began, cpu_began = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.seconds = time.perf_counter() - began
    result.cpu_s = time.process_time() - cpu_began
    return result


def compare_alternatives(
    alternatives: dict[str, tuple[SearchService, SearchRequest]], rounds: int, seconds: float
) -> dict[tuple[str, int], list[LoadResult]]:
    """Run each alternative with each number of users, alternately."""
    results: dict[tuple[str, int], list[LoadResult]] = {}
    for number in range(rounds + 1):
        for users in USERS:
            for name, (search, request) in alternatives.items():
                duration = seconds * max(1.0, users / 24) if number else 0.2
                result = run_load(search, request, users, duration)
                if number:  # round 0 is the warm-up
                    results.setdefault((name, users), []).append(result)
    return results


def searches_per_second(results: list[LoadResult]) -> Measurement:
    return Measurement(tuple(each.per_second for each in results), "/s")


def report_loads(
    report: BenchmarkReport, results_by_load: dict[tuple[str, int], list[LoadResult]]
) -> None:
    """Add a row for each alternative and number of users."""
    for (name, users), results in sorted(results_by_load.items(), key=lambda each: each[0][1]):
        rate = searches_per_second(results)
        unbatched = searches_per_second(results_by_load.get((UNBATCHED, users), results))
        ms = Measurement(tuple(ms for each in results for ms in each.ms), "ms")
        report.row(
            searches=name,
            users=users,
            rate=rate,
            relative_to_one_user=ratio(rate, searches_per_second(results_by_load[name, 1])),
            relative_to_no_batching=None if name == VECTORS else ratio(rate, unbatched),
            cpu_ms=Measurement(tuple(each.cpu_ms for each in results), "ms"),
            p50_ms=ms.p50,
            p95_ms=ms.at(95),
            p99_ms=ms.at(99),
            refused=sum(each.refused for each in results),
            errors=sum(sum(each.errors.values()) for each in results),
        )
        for each in results:
            assert not each.errors, each.errors


def measure_overload(
    report: BenchmarkReport, search: SearchService, request: SearchRequest, seconds: float
) -> None:
    """One user, then an overload with a short admission wait, then one user again."""
    for users, name in (
        (1, "before the overload"),
        (OVERLOAD_USERS, "overload"),
        (1, "after the overload"),
    ):
        result = run_load(search, request, users, seconds)
        assert result.ms and not result.errors, result
        ms = Measurement(tuple(result.ms), "ms")
        report.row(
            searches=f"pictures, {name}",
            users=users,
            rate=result.per_second,
            p50_ms=ms.p50,
            p95_ms=ms.at(95),
            p99_ms=ms.at(99),
            refused=result.refused,
            errors=sum(result.errors.values()),
        )


def measure(app: App, rounds: int, seconds: float, report: BenchmarkReport) -> None:
    model, vectors = app.catalog.model().id, generate_vectors(2000, 99)
    photos = [generate_photo(seed) for seed in range(PICTURES)]

    def by_picture(search: SearchService, number: int) -> object:
        return search.search(Query(picture=photos[number % PICTURES]))

    def by_vector(search: SearchService, number: int) -> object:
        return search.search(Query(vector=vectors[number % 2000], model_id=model))

    by_picture(app.search, 0)
    sizes: list[int] = []
    alternatives = {
        "pictures, batched": (make_service(app, BatcherPool(sizes.append)), by_picture),
        "pictures, sequential": (
            make_service(app, BatcherPool(max_batch=1, slots=1)),
            by_picture,
        ),
        UNBATCHED: (make_service(app, UnbatchedPool()), by_picture),
        VECTORS: (make_service(app, BatcherPool()), by_vector),
    }
    report_loads(report, compare_alternatives(alternatives, rounds, seconds))
    measure_overload(
        report, make_service(app, BatcherPool(), OVERLOAD_WAIT_S), by_picture, 2 * seconds
    )
    report.note(
        f"{app.settings.places} searches run concurrently; during the overload one waits "
        f"{OVERLOAD_WAIT_S:g} s at most."
    )
    report.note(f"Batched: {np.mean(sizes):.1f} pictures in a batch on average.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of one load run")
    options = parser.parse_args()
    report = BenchmarkReport("users", "Concurrent users")
    with catalogue(options.rows) as app:
        app.indexer.rebuild()
        measure(app, options.rounds, options.seconds, report)
    report.note(f"{options.rows:,} products with an index; query photos of one megapixel.")
    report.write()


if __name__ == "__main__":
    main()
