"""How fast pictures are ingested, beside the encoder alone and the few lines that demos show.

    python -m bench.ingest.throughput [--tower fp32|int8|torch] [--pictures N] [--rounds N]
        [--model NAME] [--catalogue CSV]

In turn: the encoder on batches that are decoded and cut already, each on all cores, and one batch
on each core ("apart"); an ingest of all files into an empty catalogue of an embedded server;
SentenceTransformer.encode over files, opened by Pillow.
Without --model it is a CLIP of the size of ViT-B/32 with random weights, without --catalogue
drawn photographs of a megapixel. Loading models and starting the server are not measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
from sqlalchemy import text

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.encoders.base import INT8, Encoder
from app.encoders.fit_projection import photos as files_of
from app.encoders.loading import load_encoder
from app.encoders.preprocessing import PreparedPicture
from app.encoders.torch_threads import set_thread_count, thread_count
from app.images.decoding import decode
from bench.data import random_clip, synthetic_photos
from bench.harness.side_by_side import Report, Sample, in_turn, ratio
from ingest.load import load
from ingest.prefetch import ENCODED_AT_ONCE, ENCODERS

BATCH = 32
GOALS = {"fp32": (0.88, 1.6), "int8": (0.75, 3.5)}
"""Of the encoder alone, and times SentenceTransformer.encode."""


@dataclass(frozen=True)
class Job:
    """What is measured: a source with its files, through the app's encoder."""

    app: App
    source: Path
    files: list[Path]
    single: Encoder
    """The same model, for one batch at a time on all cores."""
    shown: int
    """Files that the demos' lines are given: they take long."""
    folder: str = ""
    """What the folder of real photos is called."""


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as place:
        folder = Path(place)
        source = given.catalogue or synthetic_photos.write(folder / "photos", given.pictures)
        model = given.model or str(random_clip.save(folder / "clip"))
        with opened(folder, model, given.tower) as app:
            files = files_of(source.parent)[: None if given.catalogue else given.pictures]
            single = load_encoder(
                app.settings.model,
                compiled_cache=app.settings.compiled_cache_folder,
                compiled=given.tower != "torch",
            )
            folder_name = source.parent.name if given.catalogue else ""
            job = Job(app, source, files, single, min(len(files), given.shown), folder_name)
            demo = None if model == "embedded" else SentenceTransformer(model, device="cpu")
            measure(job, demo, given.tower, given.rounds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", choices=("fp32", "int8", "torch"), default="fp32")
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--shown", type=int, default=128, help="files for the demos' lines")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="a folder or 'embedded'")
    parser.add_argument("--catalogue", type=Path, metavar="CSV")
    return parser.parse_args()


@contextmanager
def opened(folder: Path, model: str, tower: str) -> Iterator[App]:
    """An empty catalogue on a server of its own, with the encoder loaded."""
    settings = Settings(
        home=folder / "home", cache_dir=folder / "cache", sample_queries=False,
        model=model + INT8 if tower == "int8" else model, openvino=tower != "torch",
    )  # fmt: skip
    try:
        with App(settings, streams=ENCODERS) as app:
            app.initialise()
            app.encoder()
            yield app
    finally:
        embedded_server.stop(folder / "home")
        shutil.rmtree(folder / "home", ignore_errors=True)


def measure(job: Job, demo: SentenceTransformer | None, tower: str, rounds: int) -> None:
    encoder = job.app.encoder()
    name = f"ingest_{tower}{job.folder and '_' + job.folder}"
    report = Report(name, f"Ingest of {len(job.files)} pictures, {tower} tower")
    report.note(f"Pictures are encoded by {encoder.runtime}.")
    prepared = [encoder.prepare(decode(file.read_bytes(), at_least=encoder.input_side))
                for file in job.files[:128]]  # fmt: skip
    spent: list[float] = []
    ways: dict[str, Callable[[], float]] = {
        "alone": lambda: alone(job.single, prepared, len(job.files)),
        "apart": lambda: apart(encoder, prepared, len(job.files)),
        "ingest": lambda: ingest(job, spent),
    }
    if demo is not None:
        ways["demo"] = lambda: shown(demo, job.files[: job.shown])
    told = {name: telling(name, way) for name, way in ways.items()}
    rates = in_turn(told, rounds, unit="/s")
    of_alone = ratio(rates["ingest"], rates["alone"])
    by_demo = ratio(rates["ingest"], rates["demo"]) if demo is not None else None
    of_apart = ratio(rates["ingest"], rates["apart"])
    report.row(
        tower=tower, **rates, of_the_encoder=of_alone, of_it_apart=of_apart, times_the_demo=by_demo
    )
    for stage, ms in stages(job, prepared).items():
        report.row(stage=stage, cpu=Sample((ms,), "ms a picture"))
    report.row(stage="ingest, this process", cpu=Sample(tuple(spent[2::2]), "ms a picture"))
    report.row(stage="ingest, PostgreSQL", cpu=Sample(tuple(spent[3::2]), "ms a picture"))
    if tower in GOALS:
        report.goal("share of the encoder alone", of_alone, GOALS[tower][0])
        if by_demo is not None:
            report.goal("times SentenceTransformer.encode", by_demo, GOALS[tower][1])
    report.write()


def telling(name: str, way: Callable[[], float]) -> Callable[[], float]:
    """The same, and each figure is said when it is there: a run takes minutes."""

    def measured() -> float:
        rate = way()
        print(f"    {name}: {rate:.1f} pictures/s", flush=True)
        return rate

    return measured


def alone(encoder: Encoder, prepared: list[PreparedPicture], count: int) -> float:
    """Pictures a second of the encoder on batches that lie ready."""
    began = time.perf_counter()
    for start in range(0, count, BATCH):
        batch = [prepared[n % len(prepared)] for n in range(start, min(start + BATCH, count))]
        encoder.encode_prepared(batch)
    return count / (time.perf_counter() - began)


def apart(encoder: Encoder, prepared: list[PreparedPicture], count: int) -> float:
    """The same in as many threads, and batches as large, as an ingest has."""
    rows = [prepared[n % len(prepared)] for n in range(count)]
    batches = [rows[start : start + ENCODED_AT_ONCE] for start in range(0, count, ENCODED_AT_ONCE)]
    before = thread_count()
    share = max(1, before // ENCODERS)
    with ThreadPoolExecutor(ENCODERS, "encode", set_thread_count, (share,)) as threads:
        began = time.perf_counter()
        list(threads.map(encoder.encode_prepared, batches))
        took = time.perf_counter() - began
    set_thread_count(before)
    return count / took


def ingest(job: Job, spent: list[float]) -> float:
    """Pictures a second of an ingest into the emptied catalogue; notes what CPU it took."""
    with job.app.engine.begin() as connection:
        connection.execute(text("TRUNCATE product, picture CASCADE"))
    count, before = len(job.files), (time.process_time(), postgres_cpu(job.app))
    began = time.perf_counter()
    report = load(job.app.engine, job.app.catalog, job.app.encoders, job.app.limits, job.source)
    took = time.perf_counter() - began
    if report.images_embedded + report.images_reused != count:  # two of those drawn may be equal
        raise SystemExit(f"{report.images_embedded} of {count} pictures were embedded: {report}")
    spent.append((time.process_time() - before[0]) / count * 1000)
    spent.append((postgres_cpu(job.app) - before[1]) / count * 1000)
    return report.images_embedded / took  # a copy is not encoded


def shown(model: SentenceTransformer, files: list[Path]) -> float:
    """Pictures a second of what the demos of image search do."""
    began = time.perf_counter()
    model.encode([Image.open(file) for file in files], batch_size=BATCH, show_progress_bar=False)
    return len(files) / (time.perf_counter() - began)


def stages(job: Job, prepared: list[PreparedPicture]) -> dict[str, float]:
    """CPU milliseconds a picture of each stage by itself, on one thread after the other."""
    from hashlib import sha256

    from app.encoders.preprocessing import shrink
    from app.images.thumbnails import thumbnail

    encoder, some = job.app.encoder(), job.files[:64]
    data = [file.read_bytes() for file in some]
    pictures = [decode(each, at_least=encoder.input_side) for each in data]
    return {
        "read": cpu(lambda: [file.read_bytes() for file in some]) / len(some),
        "hash": cpu(lambda: [sha256(each).digest() for each in data]) / len(some),
        "decode": cpu(lambda: [decode(d, at_least=encoder.input_side) for d in data]) / len(some),
        "thumbnail": cpu(lambda: [thumbnail(p, scale=shrink) for p in pictures]) / len(some),
        "prepare": cpu(lambda: [encoder.prepare(each) for each in pictures]) / len(some),
        "encode": cpu(lambda: encoder.encode_prepared(prepared[:64])) / len(prepared[:64]),
    }


def cpu(work: Callable[[], object]) -> float:
    """CPU milliseconds of this process; the middle of three times."""
    found = []
    for _ in range(3):
        began = time.process_time()
        work()
        found.append((time.process_time() - began) * 1000)
    return float(np.median(found))


def postgres_cpu(app: App) -> float:
    """CPU seconds that the embedded server has taken, with its processes that ended."""
    postmaster = int((app.settings.home / "postgres" / "postmaster.pid").read_text().split()[0])
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended
        if int(stat.parent.name) == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == postmaster:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
