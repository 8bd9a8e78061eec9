"""Embedding and building on 1, 2 and 3 workers of a cluster, beside the same in one process.

    python -m bench.cluster.workers [--pictures 256] [--rows 60000] [--rounds 5]

All are measured in turn, in rounds, with the embedded encoder and generated photos and vectors.
Processor time is that of all processes of Ray and of this one; PostgreSQL's is not in it. On a
machine with fewer cores than workers, elapsed times say how many cores were had, not what a cluster
would take: what a cluster costs is the processor time beside that of one process. That of Ray's own
processes is told apart, as they take some whether there is work or not.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from sqlalchemy import text

from app.bootstrap import App
from app.cluster import backfill as cluster_backfill
from app.cluster import fill, job
from app.cluster.session import Cluster, connect
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.index import faiss_index, kmeans
from app.index.embedding_reader import open_embeddings, sample_rows
from app.index.filling import Fill, fill_here
from app.models import backfill
from bench.cluster.task_cost import cpu_of, cpu_seconds
from bench.data import synthetic_photos
from bench.data.catalogue import catalogue
from bench.harness.side_by_side import BenchmarkReport, Measurement, ratio
from ingest.load import load
from ingest.originals import Originals

WORKERS = (1, 2, 3)
CPUS = 6
"""Processors that the cluster believes to have: 6, 3 or 2 a task make 1, 2 or 3 workers."""

HERE = "one process"
PICTURES = 16
"""Pictures of a task here, so that three workers have several each."""

BLOCKS = 4
"""Blocks of pages of a task of a build here: some 6,000 vectors."""

Run = Callable[[], None]


def main() -> None:
    options = arguments()
    with cluster(), ExitStack() as stack:
        if options.pictures:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lookalike-bench-"))
            measure_embedding(Path(folder), options.pictures, options.rounds)
        measure_build(options.rows, options.rounds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=256, help="0: only the build")
    parser.add_argument("--rows", type=int, default=60_000, help="vectors of the build")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


@contextmanager
def cluster() -> Iterator[None]:
    """A cluster of this machine, which `connect` uses."""
    import ray

    ray.init(
        num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        # A worker that has ended is missing in the processor time.
        _system_config={"kill_idle_workers_interval_ms": 0},
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def measure_embedding(folder: Path, pictures: int, rounds: int) -> None:
    report = BenchmarkReport("cluster_embedding", f"Embedding {pictures} pictures on workers")
    cluster_backfill.PICTURES = PICTURES
    source = synthetic_photos.write_photos(folder / "photos", pictures)
    settings = Settings(home=folder / "home", model="embedded", sample_queries=False)
    try:
        with App(settings) as app:
            app.initialise()
            load(app.engine, app.catalog, app.encoders, app.limits, source)
            model = app.catalog.model()
            described = job.describe(app, "local")

            def forget() -> None:
                with app.engine.begin() as connection:
                    connection.execute(text("DELETE FROM embedding"))

            def here() -> None:
                encoder = app.encoders.for_model(model.id)
                find = Originals([source.parent], app.limits, encoder.input_side).find
                check(backfill.embed(app.engine, model, encoder, find).embedded, pictures)

            def on(workers: Cluster) -> None:
                places = [source.parent]
                done = cluster_backfill.embed(app, workers, described, model, places)
                check(done.embedded, pictures)

            measure(report, forget, here, on, rounds, pictures, "pictures")
    finally:
        embedded_server.stop(folder / "home")
    report.write()


def measure_build(rows: int, rounds: int) -> None:
    """Assigning and encoding alone, which is what tasks do of a build."""
    report = BenchmarkReport("cluster_build", f"Filling an index of {rows:,} vectors on workers")
    fill.BLOCKS = BLOCKS
    with catalogue(rows, own=True) as app:
        model, described = app.catalog.model(), job.describe(app, "local")
        with open_embeddings(app.engine, model) as source:
            lists = faiss_index.list_count(rows)
            sample = sample_rows(source, kmeans.sample_size(lists, source.dim))
            centroids = kmeans.train(sample, lists)

        def run(of: Fill) -> None:
            index = faiss_index.inverted_lists(centroids, faiss_index.CODES[0])
            with open_embeddings(app.engine, model) as source:
                of(index, source)
            check(index.rows, rows)

        def on(workers: Cluster) -> None:
            run(fill.ClusterFill(workers, described, lambda message: None))

        measure(report, lambda: None, lambda: run(fill_here), on, rounds, rows, "vectors")
    report.write()


def check(done: int, wanted: int) -> None:
    assert done == wanted, f"{done} of {wanted} were done"


def measure(
    report: BenchmarkReport,
    before: Run,
    here: Run,
    on: Callable[[Cluster], None],
    rounds: int,
    count: int,
    unit: str,
) -> None:
    """Run all in turn, `rounds` times after one that is not counted, and report."""
    elapsed: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    for number in range(1 + rounds):
        for name, run in [(HERE, here), *((f"{n} workers", workers_of(n, on)) for n in WORKERS)]:
            before()
            ray, cpu, began = ray_seconds(), cpu_seconds(), time.perf_counter()
            run()
            seconds, processor = time.perf_counter() - began, cpu_seconds() - cpu
            own = ray_seconds() - ray
            print(
                f"  round {number}, {name}: {seconds:.1f} s, {processor:.1f} s of processor time, "
                f"{own:.1f} of them of Ray", flush=True,
            )  # fmt: skip
            processor -= own
            if number:
                elapsed.setdefault(name, []).append(seconds)
                used.setdefault(name, []).append(processor)
    for name in elapsed:
        wall, cpu_s = (Measurement(tuple(each[name]), "s") for each in (elapsed, used))
        of_one = Measurement(tuple(elapsed["1 workers"]), "s")
        alone = Measurement(tuple(used[HERE]), "s")
        report.row(
            on=name,
            **{f"{unit}_a_processor_second": Measurement(
                tuple(count / each for each in used[name]), "/s")},
            processor_time_by_that_of_one_process=ratio(cpu_s, alone),
            cores_had=ratio(cpu_s, wall),
            times_as_fast_as_one_worker=ratio(of_one, wall),
        )  # fmt: skip


def ray_seconds() -> float:
    """Processor time of the processes of Ray that are no workers."""
    children = psutil.Process().children(recursive=True)
    return sum(cpu_of(each) for each in children if not is_worker(each))


def is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return (process.cmdline() or [""])[0].startswith("ray::")
    return True


def workers_of(number: int, on: Callable[[Cluster], None]) -> Run:
    """Runs on a cluster that has so many workers."""

    def run() -> None:
        with connect("local", CPUS // number) as workers:
            assert workers.slots == number
            on(workers)

    return run


if __name__ == "__main__":
    main()
