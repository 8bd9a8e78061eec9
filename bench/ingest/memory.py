"""Memory of an ingest, and whether it grows with the number of pictures.

    python -m bench.ingest.memory [--pictures N] [--model NAME] [--shape WIDTHxHEIGHT]

The pictures are generated when they are read, all different; the ingest reads them like JPEG files.
Without --model the encoder only averages colours, so that 100,000 pictures take minutes; everything
else is a normal ingest. Resident memory is read after every chunk: the first tenth fills caches,
then it should stay constant.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from app.bootstrap import App
from app.catalog.ingest_run import ingest_run
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.encoders.base import EncoderChoice
from app.encoders.loading import choose_encoder
from app.encoders.preprocessing import PreparedPicture
from app.errors import NoWords
from app.types import Product, Vectors
from bench.harness.side_by_side import BenchmarkReport
from ingest.chunk_writer import ChunkWriter
from ingest.encoder_set import MaintainedEncoders
from ingest.local_files import LocalPictures
from ingest.pipeline import Ingest, IngestReport
from ingest.prepare import Preparer
from ingest.rejects_file import RejectFile
from ingest.sources import SourceRow

DIM = 192


class ColourEncoder:
    """A fast encoder: the vector is the picture, sampled at eight by eight pixels."""

    name, revision, runtime, dim = "colours", "1", "numpy", DIM
    fingerprint = hashlib.sha256(b"colours").hexdigest()
    reads_words = False
    maps_regions = False
    input_side: int | None = 336
    batch_size = 16

    def prepare(self, picture: Image.Image) -> PreparedPicture:
        return np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.uint8)

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        rows = np.stack(prepared)[:, ::28, ::28].reshape(len(prepared), DIM).astype(np.float32) + 1
        vectors: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def encode_words(self, words: Sequence[str]) -> Vectors:
        raise NoWords


class GeneratedPictures(LocalPictures):
    """Files that are generated when they are read: `NUMBER.jpg` is a different picture for each."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        super().__init__(folder, max_bytes=1 << 30)
        width, height = shape
        blocks = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3))
        self._ground = Image.fromarray(blocks.astype(np.uint8)).resize(shape)

    def read(self, name: str) -> bytes:
        number = int(name.split(".")[0])
        picture = self._ground.copy()
        colour = tuple(hashlib.sha256(str(number).encode()).digest()[:3])
        picture.paste(colour, (number % 97, number % 89, picture.width // 2, picture.height // 2))
        file = BytesIO()
        picture.save(file, "JPEG", quality=85, comment=name)
        return file.getvalue()


def main() -> None:
    options = arguments()
    folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
    width, height = (int(side) for side in options.shape.split("x"))
    settings = Settings(
        home=folder / "home", model=options.model or "colours", sample_queries=False
    )
    choose = (
        choose_encoder if options.model else lambda name, **_: EncoderChoice(ColourEncoder(), name)
    )
    try:
        with App(settings, choose=choose) as app:
            app.initialise()
            measure_ingest(app, GeneratedPictures(folder, (width, height)), options.pictures)
    finally:
        embedded_server.stop(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--model", help="model to use instead of the fast encoder")
    parser.add_argument("--shape", default="320x240", help="size of a picture, WIDTHxHEIGHT")
    return parser.parse_args()


def measure_ingest(app: App, pictures: GeneratedPictures, count: int) -> None:
    """Ingest `count` pictures; report the peak resident memory of each tenth."""
    report = BenchmarkReport("ingest_memory", f"Memory of an ingest of {count:,} pictures")
    report.note(f"Encoder: {app.encoder().name}, runtime {app.encoder().runtime}.")
    samples: list[tuple[int, float]] = []
    model, encoders = app.catalog.model(), MaintainedEncoders(app.catalog, app.encoders)
    preparer = Preparer(app.catalog, encoders, pictures, app.limits)
    with ingest_run(app.engine, "generated", model) as run, closing(preparer):
        writer = ChunkWriter(app.catalog, encoders, preparer)
        job = Ingest(app.catalog, writer, run, RejectFile(None))
        outcome = job.run(
            source_rows(count), progress=lambda state: samples.append(resident_memory(state))
        )
    for tenth in range(1, 11):
        values = [mib for read, mib in samples if (tenth - 1) * count < read * 10 <= tenth * count]
        report.row(pictures=tenth * count // 10, peak_resident_mib=max(values, default=None))
    early = max(mib for read, mib in samples if read * 5 <= count)
    late = max(mib for read, mib in samples if read * 5 > 4 * count)
    report.note(f"{outcome.images_embedded:,} pictures in {outcome.seconds:,.0f} s.")
    report.goal("peak of the last fifth / peak of the first", late / early, 1.1, at_least=False)
    report.write()


def source_rows(count: int) -> Iterator[SourceRow]:
    """One product per picture."""
    return (
        SourceRow(n, Product(f"P{n}", title=f"Picture {n}"), (f"{n}.jpg",)) for n in range(count)
    )


def resident_memory(state: IngestReport) -> tuple[int, float]:
    """Number of rows read, and resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return state.read, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
