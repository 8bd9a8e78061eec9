"""Encoding speed of the versions of the embedded encoder, by OpenVINO, measured alternately.

    python -m bench.encoders.versions [--rounds N]

Processor time is measured too, because it depends less on what else the machine does: pictures a
second on two idle cores are about twice those of a processor second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from app.encoders.base import EMBEDDED, Encoder
from app.encoders.embedded_versions import FORMER, NEWEST
from app.encoders.loading import load_encoder
from app.encoders.probe_images import probe_images
from bench.harness.side_by_side import BenchmarkReport, measure_alternately

BATCHES = 4
BATCH = 8
GOAL = 40.0
"""Pictures a second that the newest version reaches on two cores, in 32 bits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report = BenchmarkReport("encoder-versions", "Versions of the embedded encoder")
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as folder:
        encoders = {
            version: load_encoder(EMBEDDED, revision=f"{version}-", compiled_cache=Path(folder))
            for version in (*FORMER, NEWEST)
        }
        for unit, clock in (("/s", time.perf_counter), ("/cpu s", time.process_time)):
            rates = measure_alternately(
                {name: _rate(encoder, clock) for name, encoder in encoders.items()},
                options.rounds, unit=unit,
            )  # fmt: skip
            report.row(clock=unit, **{f"version {name}": rate for name, rate in rates.items()})
            if unit == "/cpu s":
                rate = 2 * rates[NEWEST].p50
                report.goal("Pictures a second on two cores, by processor time", rate, GOAL)
    report.write()


def _rate(encoder: Encoder, clock: Callable[[], float]) -> Callable[[], float]:
    """A function that measures pictures per second of a clock."""
    side = encoder.prepare(Image.new("RGB", (64, 64))).shape[0]
    pictures = probe_images(BATCH, (side, side))

    def measure() -> float:
        began = clock()
        for _ in range(BATCHES):
            encoder.encode_prepared(list(pictures))
        return BATCHES * BATCH / (clock() - began)

    measure()
    return measure


if __name__ == "__main__":
    main()
