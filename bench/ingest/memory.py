"""What memory an ingest takes, and whether it grows with the source.

    python -m bench.ingest.memory [--pictures N] [--model NAME] [--shape WIDTHxHEIGHT]

Drawn pictures, all different and made while they are read, so that no disk has to hold them: they
are JPEG files to the ingest. Without --model the encoder looks at colours only, so that 100,000
pictures take minutes; everything else is what an ingest does. The resident memory is read after
every chunk: the first tenth fills caches, then it should stay.
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
from bench.harness.side_by_side import Report as Findings
from ingest.encoder_set import MaintainedEncoders
from ingest.local_files import LocalPictures
from ingest.pipeline import Ingest, IngestReport
from ingest.prepare import Preparer
from ingest.rejects import RejectFile
from ingest.sources import SourceRow

DIM = 192


class Colours:
    """Cheap, and else like the others: a vector is the picture, eight by eight."""

    name, revision, runtime, dim = "colours", "1", "numpy", DIM
    fingerprint = hashlib.sha256(b"colours").hexdigest()
    reads_words = False
    input_side: int | None = 336

    def prepare(self, picture: Image.Image) -> PreparedPicture:
        return np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.uint8)

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        rows = np.stack(prepared)[:, ::28, ::28].reshape(len(prepared), DIM).astype(np.float32) + 1
        found: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return found

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def encode_words(self, words: Sequence[str]) -> Vectors:
        raise NoWords


class Drawn(LocalPictures):
    """Files that are made when they are read: `number.jpg` is another picture for each number."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        super().__init__(folder, max_bytes=1 << 30)
        width, height = shape
        clouds = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3))
        self._ground = Image.fromarray(clouds.astype(np.uint8)).resize(shape)

    def read(self, name: str) -> bytes:
        number = int(name.split(".")[0])
        picture = self._ground.copy()
        colour = tuple(hashlib.sha256(str(number).encode()).digest()[:3])
        picture.paste(colour, (number % 97, number % 89, picture.width // 2, picture.height // 2))
        file = BytesIO()
        picture.save(file, "JPEG", quality=85, comment=name)
        return file.getvalue()


def main() -> None:
    given = arguments()
    folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
    width, height = (int(side) for side in given.shape.split("x"))
    settings = Settings(home=folder / "home", model=given.model or "colours", sample_queries=False)
    choose = choose_encoder if given.model else lambda name, **_: EncoderChoice(Colours(), name)
    try:
        with App(settings, choose=choose) as app:
            app.initialise()
            measure(app, Drawn(folder, (width, height)), given.pictures)
    finally:
        embedded_server.stop(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--model")
    parser.add_argument("--shape", default="320x240")
    return parser.parse_args()


def measure(app: App, pictures: Drawn, count: int) -> None:
    """An ingest of `count` pictures, with the resident memory at every tenth of it."""
    findings = Findings("ingest_memory", f"Memory of an ingest of {count:,} pictures")
    findings.note(f"The encoder is {app.encoder().name}, run by {app.encoder().runtime}.")
    held: list[tuple[int, float]] = []
    model, encoders = app.catalog.model(), MaintainedEncoders(app.catalog, app.encoders)
    preparer = Preparer(app.catalog, encoders, pictures, app.limits)
    with ingest_run(app.engine, "drawn", model) as run, closing(preparer):
        job = Ingest(app.catalog, encoders, preparer, run, RejectFile(None))
        report = job.run(rows(count), progress=lambda report: held.append(sample(report)))
    for tenth in range(1, 11):
        some = [mib for read, mib in held if (tenth - 1) * count < read * 10 <= tenth * count]
        findings.row(pictures=tenth * count // 10, resident_at_most_mib=max(some, default=None))
    early = max(mib for read, mib in held if read * 5 <= count)
    late = max(mib for read, mib in held if read * 5 > 4 * count)
    findings.note(f"{report.images_embedded:,} pictures in {report.seconds:,.0f} s.")
    findings.goal("most of the last fifth by most of the first", late / early, 1.1, at_least=False)
    findings.write()


def rows(count: int) -> Iterator[SourceRow]:
    return (
        SourceRow(n, Product(f"P{n}", title=f"Picture {n}"), (f"{n}.jpg",)) for n in range(count)
    )


def sample(report: IngestReport) -> tuple[int, float]:
    """Rows read, and MiB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return report.read, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
