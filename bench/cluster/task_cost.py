"""What a task of a cluster costs beside its work: processor time of all processes of Ray.

    python -m bench.cluster.task_cost [--tasks 2000]

Tasks that do nothing are run on a cluster of this machine, without arguments and with the rows of
an ingest, and compared with encoding the pictures that a real task has. Processor time is counted,
of this process and of all that Ray starts, so that other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import psutil
from PIL import Image

from app.cluster.backfill import PICTURES
from app.cluster.session import LOCAL, Cluster, connect
from app.encoders.loading import load_encoder
from app.types import Product
from bench.data.synthetic_photos import generate_scene
from bench.harness.side_by_side import BenchmarkReport
from ingest.sources import SourceRow

ENCODED = 64
"""Pictures that are encoded, from pixels, to know what one costs."""

WORDS = "A title of usual length for a product that a shop sells"


def nothing(*_: Any) -> None:
    """A task without work."""


def main() -> None:
    options = arguments()
    report = BenchmarkReport("cluster_task_cost", f"Cost of {options.tasks:,} tasks of a cluster")
    encoder = load_encoder("embedded")
    pictures = [Image.fromarray(generate_scene(seed)) for seed in range(4)] * (ENCODED // 4)
    encoder.encode_pictures(pictures)
    began = time.process_time()
    encoder.encode_pictures(pictures)
    picture_ms = 1000 * (time.process_time() - began) / ENCODED
    report.row(what="encoding a picture", cpu_ms=round(picture_ms, 2))
    rows = [
        SourceRow(n, Product(f"P{n:09}", title=WORDS, brand="Brand"), (f"{n}.jpg",))
        for n in range(PICTURES)
    ]
    with connect(LOCAL, 1) as cluster:
        for what, call in (("an empty task", ()), (f"a task with {PICTURES} rows", (rows,))):
            cost_ms = 1000 * cpu_per_task(cluster, call, options.tasks)
            report.row(what=what, cpu_ms=round(cost_ms, 2))
            share = cost_ms / (PICTURES * picture_ms)
            report.goal(f"{what} / encoding {PICTURES} pictures", share, 0.01, at_least=False)
    report.write()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=2000)
    return parser.parse_args()


def cpu_per_task(cluster: Cluster, call: tuple[Any, ...], count: int) -> float:
    """Seconds of processor time of a task, of all processes; workers have been started before."""
    run(cluster, call, 50)
    before = cpu_seconds()
    run(cluster, call, count)
    return (cpu_seconds() - before) / count


def run(cluster: Cluster, call: tuple[Any, ...], count: int) -> None:
    for _ in cluster.run(nothing, (call for _ in range(count))):
        pass


def cpu_seconds() -> float:
    """Processor time of this process and of its descendants so far."""
    this = psutil.Process()
    return sum(map(cpu_of, (this, *this.children(recursive=True))))


def cpu_of(process: psutil.Process) -> float:
    """Processor time of a process so far; 0 for one that has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


if __name__ == "__main__":
    main()
