"""What our decoding and scaling change, beside the stock processor's on pictures decoded in full.

    python -m bench.ingest.preprocessing [--model NAME] [FOLDER ...]

Grey levels and vectors of drawn photographs through a CLIP (default: of the size of ViT-B/32 with
random weights, of which only the cosine means anything). Each FOLDER holds catalogue.csv (sku,
images) and queries.csv (query, expected_sku): there recall of the embedded encoder is measured with
pictures decoded in full and scaled in one step, and as it is.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer

from app.encoders.base import Encoder
from app.encoders.efficientnet import SIDE
from app.encoders.fit_projection import photos as files_of
from app.encoders.fit_projection import table
from app.encoders.loading import load_encoder
from app.encoders.preprocessing import PreparedPicture, preprocessor_from_config
from app.images.decoding import decode
from app.types import Vectors
from bench.data import random_clip, synthetic_photos
from bench.harness.side_by_side import Report

PHOTOS = 48
TOP = (1, 5, 10)

Prepare = Callable[[Encoder, Path], PreparedPicture]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--model", help="the folder of a CLIP")
    given = parser.parse_args()
    report = Report("preprocessing", "Our decoding and scaling beside the stock processor's")
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as folder:
        model = given.model or str(random_clip.save(Path(folder) / "clip"))
        files = files_of(synthetic_photos.write(Path(folder) / "photos", PHOTOS).parent)
        clip(report, model, "drawn photographs", files)
        for each in given.folders:
            clip(report, model, each.name, files_of(each)[:: len(files_of(each)) // PHOTOS])
    for each in given.folders:
        recall(report, each, load_encoder("embedded", compiled=False))
    report.write()


def clip(report: Report, model: str, name: str, files: list[Path]) -> None:
    """Levels and vectors of a CLIP: only scaled by us, and decoded by us too."""
    encoder = load_encoder(model, compiled=False)
    stock = SentenceTransformer(model, device="cpu")
    full = [decode(file.read_bytes()) for file in files]
    theirs, vectors = levels(stock, full), stock.encode(full, normalize_embeddings=True)
    ours = {
        "scaled by us": [encoder.prepare(each) for each in full],
        "decoded and scaled by us": [by_draft(encoder, file) for file in files],
    }
    for way, prepared in ours.items():
        off = np.abs(theirs - np.stack(prepared).transpose(0, 3, 1, 2))
        cosines = (encoder.encode_prepared(prepared) * vectors).sum(axis=1)
        report.row(
            pictures=f"{name}, {len(files)}", way=way, levels_at_most=float(off.max()),
            levels_on_average=float(off.mean()), psnr_db=float(psnr(off)),
            cosine_at_least=f"{cosines.min():.6f}", cosine_middle=f"{np.median(cosines):.6f}",
        )  # fmt: skip


def levels(model: SentenceTransformer, pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    """The grey levels that the model's own processor makes: (n, 3, height, width), 0 to 255."""
    processor = getattr(model.processor, "image_processor", model.processor)
    pixels = preprocessor_from_config(processor.to_dict())
    if pixels is None:
        raise SystemExit("Only the model's own processor knows what it reads: nothing is compared.")
    found = np.concatenate([model.preprocess([each])["pixel_values"].numpy() for each in pictures])
    mean, std = (np.asarray(each)[:, None, None] for each in (pixels.mean, pixels.std))
    return np.asarray((found * std + mean) / pixels.factor)


def psnr(off: NDArray[np.float64]) -> float:
    return float(20 * np.log10(255 / max(np.sqrt((off**2).mean()), 1e-9)))


def by_draft(encoder: Encoder, file: Path) -> PreparedPicture:
    """As an ingest does it."""
    return encoder.prepare(decode(file.read_bytes(), at_least=encoder.input_side))


def in_full(_: Encoder, file: Path) -> PreparedPicture:
    """Every pixel decoded, and scaled to the embedded encoder's square in one step."""
    picture = decode(file.read_bytes()).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


def recall(report: Report, folder: Path, encoder: Encoder) -> None:
    """recall@k over the catalogue's pictures, both ways."""
    vectors = {way.__name__: of_folder(folder, encoder, way) for way in (in_full, by_draft)}
    for way, (hits, _) in vectors.items():
        found = {f"recall@{k}": round(float((hits < k).mean()), 4) for k in TOP}
        report.row(catalogue=folder.name, queries=len(hits), way=way.replace("_", " "), **found)
    (before, full), (after, ours) = vectors.values()
    cosines = (full * ours).sum(axis=1)
    report.note(
        f"{folder.name}: the place of the right product changes for {(before != after).sum()} of "
        f"{len(before)} queries; cosine {cosines.min():.6f} at least."
    )


def of_folder(folder: Path, encoder: Encoder, way: Prepare) -> tuple[NDArray[np.int64], Vectors]:
    """The place of each query's product, 0 the first, and the queries' vectors."""
    products = table(folder / "catalogue.csv")
    names = [(row["sku"], name) for row in products for name in row["images"].split("|")]
    queries = table(folder / "queries.csv")
    there = encoded(encoder, way, [folder / name for _, name in names])
    asked = encoded(encoder, way, [folder / row["query"] for row in queries])
    skus = np.array([sku for sku, _ in names])
    places = []
    for query, scores in zip(queries, asked @ there.T, strict=True):
        order = list(dict.fromkeys(skus[np.argsort(-scores, kind="stable")]))
        places.append(order.index(query["expected_sku"]))
    return np.array(places), asked


def encoded(encoder: Encoder, way: Prepare, files: Sequence[Path]) -> Vectors:
    batches = (files[start : start + 32] for start in range(0, len(files), 32))
    return np.concatenate(
        [encoder.encode_prepared([way(encoder, file) for file in batch]) for batch in batches]
    )


if __name__ == "__main__":
    main()
