"""Many users: closed-loop load on one SearchService, and what is beyond its capacity.

    python -m bench.search.users --rows 100000

Each user searches again as soon as the answer is there. In turn: pictures that are encoded
together, one after the other, and each for itself; vectors, for the search without an encoder; then
a crowd of whom some wait too long and are refused, and what one user gets before and after it.

On a machine that does other things too, a way that runs more threads gets more of the processor:
the milliseconds of processor an answer costs this process say what a way is worth on an idle one.
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
from bench.data.catalogue import catalogue, drawn
from bench.harness.side_by_side import Report, Sample, ratio

USERS = (1, 4, 16, 64)
PICTURES = 60
SIDES = (1152, 864)
CROWD = 200
PATIENCE_S = 0.5
"""Seconds that each of a crowd waits for its turn, so that the benchmark need not wait as long as
people do."""

ITSELF = "pictures, each for itself"
VECTORS = "vectors"

Ask = Callable[[SearchService, int], object]


@dataclass
class Heard:
    """What the users of one slice of time heard: milliseconds of answers, refusals, errors."""

    ms: list[float] = field(default_factory=list)
    refused: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    processor_s: float = 0.0

    @property
    def processor_ms(self) -> float:
        return 1000 * self.processor_s / max(1, len(self.ms))

    @property
    def per_second(self) -> float:
        return len(self.ms) / self.seconds


class Apart(BatcherPool):
    """No queue: every caller runs the encoder, as if it were alone."""

    def get(self, encoder: Encoder) -> EncoderQueues:
        queue = super().get(encoder)
        queue.pictures.encode = encoder.encode_prepared  # type: ignore[method-assign]
        return queue


def photo(seed: int) -> bytes:
    """A JPEG of one megapixel, of soft colours."""
    small = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(SIDES, Image.Resampling.BICUBIC).save(file, "JPEG", quality=88)
    return file.getvalue()


def service(app: App, queues: BatcherPool, wait_s: float = 60.0) -> SearchService:
    """A SearchService as the App has it, with another queue before the encoder."""
    encoder = QueryEncoder(app.encoders, app._decode, app._decode_in_sandbox, queues)
    return SearchService(
        app.search_engine, encoder, app.files, app.settings,
        admission=Admission(app.settings.places, wait_s), fast_path=app.search._fast_path,
    )  # fmt: skip


def slice_of(search: SearchService, ask: Ask, users: int, seconds: float) -> Heard:
    """So many users for so long; those who are being served at the end are waited for."""
    heard, lock, end = Heard(), threading.Lock(), time.perf_counter() + seconds

    def use(number: int) -> None:
        own = Heard()
        while True:
            began = time.perf_counter()
            try:
                ask(search, number)
                own.ms.append((time.perf_counter() - began) * 1000)
            except Busy:
                own.refused += 1
            except Exception as exc:
                own.errors[f"{type(exc).__name__}: {exc}"[:200]] += 1
            number += users
            if time.perf_counter() >= end:  # asked here, so that everybody asks once
                break
        with lock:
            heard.ms += own.ms
            heard.refused += own.refused
            heard.errors += own.errors

    threads = [threading.Thread(target=use, args=(number,)) for number in range(users)]
    began, busy = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard.seconds = time.perf_counter() - began
    heard.processor_s = time.process_time() - busy
    return heard


def compared(
    ways: dict[str, tuple[SearchService, Ask]], rounds: int, seconds: float
) -> dict[tuple[str, int], list[Heard]]:
    """Every way with every number of users, in turn."""
    found: dict[tuple[str, int], list[Heard]] = {}
    for number in range(rounds + 1):
        for users in USERS:
            for name, (search, ask) in ways.items():
                long = seconds * max(1.0, users / 24) if number else 0.2
                heard = slice_of(search, ask, users, long)
                if number:
                    found.setdefault((name, users), []).append(heard)
    return found


def per_second(heard: list[Heard]) -> Sample:
    return Sample(tuple(each.per_second for each in heard), "/s")


def told(report: Report, found: dict[tuple[str, int], list[Heard]]) -> None:
    """A row for every way with every number of users."""
    for (name, users), heard in sorted(found.items(), key=lambda each: each[0][1]):
        rate, ms = per_second(heard), Sample(tuple(ms for each in heard for ms in each.ms), "ms")
        alone = per_second(found.get((ITSELF, users), heard))
        report.row(
            searches=name,
            users=users,
            answers=rate,
            to_one_user=ratio(rate, per_second(found[name, 1])),
            to_each_for_itself=None if name == VECTORS else ratio(rate, alone),
            processor_ms=Sample(tuple(each.processor_ms for each in heard), "ms"),
            p50_ms=ms.p50,
            p95_ms=ms.at(95),
            p99_ms=ms.at(99),
            refused=sum(each.refused for each in heard),
            errors=sum(sum(each.errors.values()) for each in heard),
        )
        for each in heard:
            assert not each.errors, each.errors


def crowded(report: Report, search: SearchService, ask: Ask, seconds: float) -> None:
    """One user, then a crowd of whom nobody waits for long, then one user again."""
    for users, name in ((1, "before the crowd"), (CROWD, "a crowd"), (1, "after the crowd")):
        heard = slice_of(search, ask, users, seconds)
        assert heard.ms and not heard.errors, heard
        ms = Sample(tuple(heard.ms), "ms")
        report.row(
            searches=f"pictures, {name}",
            users=users,
            answers=heard.per_second,
            p50_ms=ms.p50,
            p95_ms=ms.at(95),
            p99_ms=ms.at(99),
            refused=heard.refused,
            errors=sum(heard.errors.values()),
        )


def measure(app: App, rounds: int, seconds: float, report: Report) -> None:
    model, vectors = app.catalog.model().id, drawn(2000, 99)
    photos = [photo(seed) for seed in range(PICTURES)]

    def by_picture(search: SearchService, number: int) -> object:
        return search.search(Query(picture=photos[number % PICTURES]))

    def by_vector(search: SearchService, number: int) -> object:
        return search.search(Query(vector=vectors[number % 2000], model_id=model))

    by_picture(app.search, 0)
    sizes: list[int] = []
    ways = {
        "pictures, encoded together": (service(app, BatcherPool(sizes.append)), by_picture),
        "pictures, one after the other": (
            service(app, BatcherPool(max_batch=1, slots=1)),
            by_picture,
        ),
        ITSELF: (service(app, Apart()), by_picture),
        VECTORS: (service(app, BatcherPool()), by_vector),
    }
    told(report, compared(ways, rounds, seconds))
    crowded(report, service(app, BatcherPool(), PATIENCE_S), by_picture, 2 * seconds)
    places = app.settings.places
    report.note(f"{places} searches ran at a time; a crowd waits {PATIENCE_S:g} s at most.")
    report.note(f"Encoded together, {np.mean(sizes):.1f} pictures in a batch on average.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    words = parser.parse_args()
    report = Report("users", "Many users")
    with catalogue(words.rows) as app:
        app.indexer.rebuild()
        measure(app, words.rounds, words.seconds, report)
    report.note(f"{words.rows:,} products with an index; photos of one megapixel.")
    report.write()


if __name__ == "__main__":
    main()
