"""Ingest throughput, compared with the encoder alone and with SentenceTransformer.encode.

    python -m bench.ingest.throughput [--tower fp32|int8|torch] [--pictures N] [--rounds N]
        [--model NAME] [--catalogue CSV]

Measured alternately: the encoder on preprocessed batches, one batch at a time on all cores
("encoder"), and one batch per core ("encoder per core"); an ingest of all files into an empty
catalogue on an embedded server; SentenceTransformer.encode over files opened with Pillow.
Without --model the model is a CLIP of the size of ViT-B/32 with random weights; without --catalogue
the photos are generated, with one megapixel each. Loading models and starting the server are not
measured.
"""

from __future__ import annotations

import argparse
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
from bench.harness.processes import postgres_cpu_s
from bench.harness.side_by_side import BenchmarkReport, Measurement, measure_alternately, ratio
from ingest.load import load
from ingest.prefetch import ENCODED_AT_ONCE, ENCODERS

BATCH = 32
GOALS = {"fp32": (0.88, 1.6), "int8": (0.75, 3.5)}
"""By precision: ingest rate relative to the encoder, and to SentenceTransformer.encode."""


@dataclass(frozen=True)
class IngestBenchmark:
    """The app with its encoder, the source to ingest, and its files."""

    app: App
    source: Path
    files: list[Path]
    all_cores_encoder: Encoder
    """The same model, compiled for one batch at a time on all cores."""
    comparison_files: int
    """Number of files for SentenceTransformer.encode, which is slow."""
    folder: str = ""
    """Name of the folder of real photos, empty for generated ones."""


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as temporary:
        folder = Path(temporary)
        source = options.catalogue or synthetic_photos.write_photos(
            folder / "photos", options.pictures
        )
        model = options.model or str(random_clip.save(folder / "clip"))
        with open_catalogue(folder, model, options.tower) as app:
            files = files_of(source.parent)[: None if options.catalogue else options.pictures]
            all_cores_encoder = load_encoder(
                app.settings.model,
                compiled_cache=app.settings.compiled_cache_folder,
                compiled=options.tower != "torch",
            )
            folder_name = source.parent.name if options.catalogue else ""
            comparison_files = min(len(files), options.shown)
            job = IngestBenchmark(
                app, source, files, all_cores_encoder, comparison_files, folder_name
            )
            transformer = None if model == "embedded" else SentenceTransformer(model, device="cpu")
            measure(job, transformer, options.tower, options.rounds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", choices=("fp32", "int8", "torch"), default="fp32",
                        help="precision or runtime of the image encoder")  # fmt: skip
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument(
        "--shown", type=int, default=128, help="files for SentenceTransformer.encode"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="folder of a model, or 'embedded'")
    parser.add_argument("--catalogue", type=Path, metavar="CSV")
    return parser.parse_args()


@contextmanager
def open_catalogue(folder: Path, model: str, precision: str) -> Iterator[App]:
    """An empty catalogue on a new embedded server, with the encoder loaded."""
    settings = Settings(
        home=folder / "home", cache_dir=folder / "cache", sample_queries=False,
        model=model + INT8 if precision == "int8" else model, openvino=precision != "torch",
    )  # fmt: skip
    try:
        with App(settings, streams=ENCODERS) as app:
            app.initialise()
            app.encoder()
            yield app
    finally:
        embedded_server.stop(folder / "home")
        shutil.rmtree(folder / "home", ignore_errors=True)


def measure(
    job: IngestBenchmark, transformer: SentenceTransformer | None, precision: str, rounds: int
) -> None:
    """Compare the rates, then measure the CPU time of each stage."""
    encoder = job.app.encoder()
    name = f"ingest_{precision}{job.folder and '_' + job.folder}"
    report = BenchmarkReport(name, f"Ingest of {len(job.files)} pictures, {precision}")
    report.note(f"Runtime of the encoder: {encoder.runtime}.")
    prepared = [encoder.prepare(decode(file.read_bytes(), at_least=encoder.input_side))
                for file in job.files[:128]]  # fmt: skip
    cpu_times: list[tuple[float, float]] = []
    alternatives: dict[str, Callable[[], float]] = {
        "encoder": lambda: encoder_alone(job.all_cores_encoder, prepared, len(job.files)),
        "encoder_per_core": lambda: encoder_per_core(encoder, prepared, len(job.files)),
        "ingest": lambda: run_ingest(job, cpu_times),
    }
    if transformer is not None:
        files = job.files[: job.comparison_files]
        alternatives["sentence_transformers"] = lambda: sentence_transformers(transformer, files)
    alternatives = {name: with_progress(name, run) for name, run in alternatives.items()}
    rates = measure_alternately(alternatives, rounds, unit="/s")
    relative = {
        name: ratio(rates["ingest"], rate) for name, rate in rates.items() if name != "ingest"
    }
    relative_to_transformer = relative.get("sentence_transformers")
    report.row(
        precision=precision, **rates,
        ingest_by_encoder=relative["encoder"],
        ingest_by_encoder_per_core=relative["encoder_per_core"],
        ingest_by_sentence_transformers=relative_to_transformer,
    )  # fmt: skip
    for stage, ms in stage_cpu_times(job, prepared).items():
        report.row(stage=stage, cpu=Measurement((ms,), "ms per picture"))
    own, postgres = zip(*cpu_times[1:], strict=True)  # without the warm-up round
    report.row(stage="ingest, this process", cpu=Measurement(own, "ms per picture"))
    report.row(stage="ingest, PostgreSQL", cpu=Measurement(postgres, "ms per picture"))
    if precision in GOALS:
        report.goal("relative to the encoder alone", relative["encoder"], GOALS[precision][0])
        if relative_to_transformer is not None:
            report.goal(
                "relative to SentenceTransformer.encode",
                relative_to_transformer, GOALS[precision][1],
            )  # fmt: skip
    report.write()


def with_progress(name: str, measure_rate: Callable[[], float]) -> Callable[[], float]:
    """The function, which also prints each rate at once: a run takes minutes."""

    def measured() -> float:
        rate = measure_rate()
        print(f"    {name}: {rate:.1f} pictures/s", flush=True)
        return rate

    return measured


def encoder_alone(encoder: Encoder, prepared: list[PreparedPicture], count: int) -> float:
    """Pictures per second of the encoder on preprocessed batches, one at a time."""
    began = time.perf_counter()
    for start in range(0, count, BATCH):
        batch = [prepared[n % len(prepared)] for n in range(start, min(start + BATCH, count))]
        encoder.encode_prepared(batch)
    return count / (time.perf_counter() - began)


def encoder_per_core(encoder: Encoder, prepared: list[PreparedPicture], count: int) -> float:
    """Pictures per second with the number of threads and the batch size of an ingest."""
    rows = [prepared[n % len(prepared)] for n in range(count)]
    batches = [rows[start : start + ENCODED_AT_ONCE] for start in range(0, count, ENCODED_AT_ONCE)]
    before = thread_count()
    share = max(1, before // ENCODERS)
    with ThreadPoolExecutor(ENCODERS, "encode", set_thread_count, (share,)) as threads:
        began = time.perf_counter()
        list(threads.map(encoder.encode_prepared, batches))
        seconds = time.perf_counter() - began
    set_thread_count(before)
    return count / seconds


def run_ingest(job: IngestBenchmark, cpu_times: list[tuple[float, float]]) -> float:
    """Pictures per second of an ingest into the emptied catalogue.

    Appends the CPU milliseconds per picture of this process and of PostgreSQL to `cpu_times`.
    """
    with job.app.engine.begin() as connection:
        connection.execute(text("TRUNCATE product, picture CASCADE"))
    count = len(job.files)
    own_before, postgres_before = time.process_time(), postgres_cpu_s(job.app.settings.home)
    began = time.perf_counter()
    report = load(job.app.engine, job.app.catalog, job.app.encoders, job.app.limits, job.source)
    seconds = time.perf_counter() - began
    if report.images_embedded + report.images_reused != count:  # files may be equal
        raise SystemExit(f"{report.images_embedded} of {count} pictures were embedded: {report}")
    own = time.process_time() - own_before
    postgres = postgres_cpu_s(job.app.settings.home) - postgres_before
    cpu_times.append((own / count * 1000, postgres / count * 1000))
    return report.images_embedded / seconds  # copies are not encoded


def sentence_transformers(model: SentenceTransformer, files: list[Path]) -> float:
    """Pictures per second of SentenceTransformer.encode, as demos of image search use it."""
    began = time.perf_counter()
    model.encode([Image.open(file) for file in files], batch_size=BATCH, show_progress_bar=False)
    return len(files) / (time.perf_counter() - began)


def stage_cpu_times(job: IngestBenchmark, prepared: list[PreparedPicture]) -> dict[str, float]:
    """CPU milliseconds per picture of each stage, measured separately."""
    from hashlib import sha256

    from app.encoders.preprocessing import shrink
    from app.images.thumbnails import thumbnail

    encoder, files = job.app.encoder(), job.files[:64]
    data = [file.read_bytes() for file in files]
    pictures = [decode(each, at_least=encoder.input_side) for each in data]
    return {
        "read": cpu_ms(lambda: [file.read_bytes() for file in files], len(files)),
        "hash": cpu_ms(lambda: [sha256(each).digest() for each in data], len(files)),
        "decode": cpu_ms(
            lambda: [decode(each, at_least=encoder.input_side) for each in data], len(files)
        ),
        "thumbnail": cpu_ms(
            lambda: [thumbnail(each, scale=shrink) for each in pictures], len(files)
        ),
        "prepare": cpu_ms(lambda: [encoder.prepare(each) for each in pictures], len(files)),
        "encode": cpu_ms(lambda: encoder.encode_prepared(prepared[:64]), len(prepared[:64])),
    }


def cpu_ms(work: Callable[[], object], pictures: int) -> float:
    """CPU milliseconds of this process per picture; the median of three runs."""
    measured = []
    for _ in range(3):
        began = time.process_time()
        work()
        measured.append((time.process_time() - began) * 1000)
    return float(np.median(measured)) / pictures


if __name__ == "__main__":
    main()
