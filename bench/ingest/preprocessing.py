"""Differences of Lookalike's decoding and scaling from the stock processor on full-size pictures.

    python -m bench.ingest.preprocessing [--model NAME] [FOLDER ...]

Compares pixel values and vectors of generated photos with a CLIP (default: of the size of ViT-B/32
with random weights, for which only the cosine is meaningful). Each FOLDER holds catalogue.csv (sku,
images) and queries.csv (query, expected_sku), with which recall of the embedded encoder is measured
twice: with full-size decoding and one resize, and as an ingest does it.
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
from app.encoders.efficientnet_pair import SIDE
from app.encoders.fit_projection import photos as files_of
from app.encoders.fit_projection import table
from app.encoders.loading import load_encoder
from app.encoders.preprocessing import PreparedPicture, preprocessor_from_config
from app.images.decoding import decode
from app.types import Vectors
from bench.data import random_clip, synthetic_photos
from bench.harness.side_by_side import BenchmarkReport

PHOTOS = 48
RECALL_DEPTHS = (1, 5, 10)

PrepareFunction = Callable[[Encoder, Path], PreparedPicture]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--model", help="folder of a CLIP model")
    options = parser.parse_args()
    report = BenchmarkReport(
        "preprocessing", "Lookalike's decoding and scaling, compared with the stock processor"
    )
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as folder:
        model = options.model or str(random_clip.save(Path(folder) / "clip"))
        files = files_of(synthetic_photos.write_photos(Path(folder) / "photos", PHOTOS).parent)
        measure_clip(report, model, "generated photos", files)
        for photo_folder in options.folders:
            files = files_of(photo_folder)
            measure_clip(report, model, photo_folder.name, files[:: len(files) // PHOTOS])
    for photo_folder in options.folders:
        measure_recall(report, photo_folder, load_encoder("embedded", compiled=False))
    report.write()


def measure_clip(report: BenchmarkReport, model: str, name: str, files: list[Path]) -> None:
    """Differences from the stock processor: of scaling only, and of decoding and scaling."""
    encoder = load_encoder(model, compiled=False)
    stock = SentenceTransformer(model, device="cpu")
    full = [decode(file.read_bytes()) for file in files]
    stock_levels, vectors = grey_levels(stock, full), stock.encode(full, normalize_embeddings=True)
    variants = {
        "scaled by Lookalike": [encoder.prepare(picture) for picture in full],
        "decoded and scaled by Lookalike": [draft_decoded(encoder, file) for file in files],
    }
    for variant, prepared in variants.items():
        differences = np.abs(stock_levels - np.stack(prepared).transpose(0, 3, 1, 2))
        cosines = (encoder.encode_prepared(prepared) * vectors).sum(axis=1)
        report.row(
            pictures=f"{name}, {len(files)}", variant=variant,
            max_difference=float(differences.max()), mean_difference=float(differences.mean()),
            psnr_db=psnr(differences), min_cosine=f"{cosines.min():.6f}",
            median_cosine=f"{np.median(cosines):.6f}",
        )  # fmt: skip


def grey_levels(model: SentenceTransformer, pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    """Pixel values from the model's own processor: shape (n, 3, height, width), 0 to 255."""
    processor = getattr(model.processor, "image_processor", model.processor)
    pixels = preprocessor_from_config(processor.to_dict())
    if pixels is None:
        raise SystemExit(
            "The preprocessing of this model is not supported: there is nothing to compare."
        )
    values = np.concatenate([model.preprocess([each])["pixel_values"].numpy() for each in pictures])
    mean, std = (np.asarray(each)[:, None, None] for each in (pixels.mean, pixels.std))
    return np.asarray((values * std + mean) / pixels.factor)


def psnr(differences: NDArray[np.float64]) -> float:
    """Peak signal-to-noise ratio in dB of differences between values from 0 to 255."""
    return float(20 * np.log10(255 / max(np.sqrt((differences**2).mean()), 1e-9)))


def draft_decoded(encoder: Encoder, file: Path) -> PreparedPicture:
    """Decoded at a reduced size and scaled, as an ingest does it."""
    return encoder.prepare(decode(file.read_bytes(), at_least=encoder.input_side))


def fully_decoded(_: Encoder, file: Path) -> PreparedPicture:
    """Decoded at full size, and scaled to the input of the embedded encoder in one step."""
    picture = decode(file.read_bytes()).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


def measure_recall(report: BenchmarkReport, folder: Path, encoder: Encoder) -> None:
    """recall@k of the labelled queries of a folder, with both kinds of preprocessing."""
    results = {
        "full decoding": product_ranks(folder, encoder, fully_decoded),
        "draft decoding": product_ranks(folder, encoder, draft_decoded),
    }
    for variant, (ranks, _) in results.items():
        recalls = {f"recall@{k}": round(float((ranks < k).mean()), 4) for k in RECALL_DEPTHS}
        report.row(catalogue=folder.name, queries=len(ranks), variant=variant, **recalls)
    (full_ranks, full_vectors), (draft_ranks, draft_vectors) = results.values()
    cosines = (full_vectors * draft_vectors).sum(axis=1)
    report.note(
        f"{folder.name}: the rank of the expected product changes for "
        f"{(full_ranks != draft_ranks).sum()} of {len(full_ranks)} queries; minimum cosine "
        f"{cosines.min():.6f}."
    )


def product_ranks(
    folder: Path, encoder: Encoder, prepare: PrepareFunction
) -> tuple[NDArray[np.int64], Vectors]:
    """Rank of the expected product of each query, from 0, and the vectors of the queries."""
    products = table(folder / "catalogue.csv")
    names = [(row["sku"], name) for row in products for name in row["images"].split("|")]
    queries = table(folder / "queries.csv")
    vectors = encode_files(encoder, prepare, [folder / name for _, name in names])
    query_vectors = encode_files(encoder, prepare, [folder / row["query"] for row in queries])
    skus = np.array([sku for sku, _ in names])
    ranks = []
    for query, scores in zip(queries, query_vectors @ vectors.T, strict=True):
        order = list(dict.fromkeys(skus[np.argsort(-scores, kind="stable")]))
        ranks.append(order.index(query["expected_sku"]))
    return np.array(ranks), query_vectors


def encode_files(encoder: Encoder, prepare: PrepareFunction, files: Sequence[Path]) -> Vectors:
    """Unit vectors of files, preprocessed in batches of 32; shape (files, dim)."""
    batches = (files[start : start + 32] for start in range(0, len(files), 32))
    return np.concatenate(
        [encoder.encode_prepared([prepare(encoder, file) for file in batch]) for batch in batches]
    )


if __name__ == "__main__":
    main()
