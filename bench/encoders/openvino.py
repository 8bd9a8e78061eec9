"""Encoding speed and recall of torch, OpenVINO fp32 and OpenVINO int8.

    python -m bench.encoders.openvino [--model NAME] [--rounds N] [--seconds S] [FOLDER ...]

Speed is measured for a network of the size of CLIP ViT-B/32 with random weights, which is as fast
as a trained one, and for the model NAME (default: embedded). Each FOLDER holds catalogue.csv (sku,
images) and queries.csv (query, expected_sku), with which recall and the deviation of int8 from fp32
are measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from app.encoders.base import Encoder
from app.encoders.compiled_cache import CompiledCache
from app.encoders.compiled_model import CompileOptions, Network, compile_network
from app.encoders.fit_projection import opened, photos, table
from app.encoders.loading import load_encoder
from app.encoders.probe_images import probe_images
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio

BATCH_SIZES = (1, 8, 32)

EncodeFunction = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
RUNTIMES = ("torch", "openvino", "int8")


class RandomVisionTransformer(nn.Module):
    """The image encoder of CLIP ViT-B/32, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = CLIPVisionConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            image_size=224, patch_size=32, projection_dim=512,
        )  # fmt: skip
        self.encoder = CLIPVisionModelWithProjection(config).eval()

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = (pictures.float() / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
        return nn.functional.normalize(self.encoder(pixel_values=pixels).image_embeds, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--model", default="embedded", help="model to measure too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement, about")
    options = parser.parse_args()
    report = BenchmarkReport("encoders", "Encoding pictures: torch, OpenVINO, int8")
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as folder:
        measure_speed(
            report,
            "ViT-B/32, random",
            random_network_runtimes(Path(folder)),
            (224, 224),
            options.rounds,
            options.seconds,
        )
        encoders = model_encoders(options.model, Path(folder))
        name = encoders["torch"].name
        side = encoders["torch"].prepare(Image.new("RGB", (64, 64))).shape[:2]
        runtimes = {key: encoder.encode_prepared for key, encoder in encoders.items()}
        measure_speed(report, name, runtimes, (side[0], side[1]), options.rounds, options.seconds)
        for photo_folder in options.folders:
            measure_recall(report, photo_folder, encoders)
    report.write()


def random_network_runtimes(folder: Path) -> dict[str, EncodeFunction]:
    """The random network with each runtime."""
    network = Network(RandomVisionTransformer().eval(), (224, 224), "random")
    options = CompileOptions(CompiledCache(folder))
    return {
        "torch": compile_network(network, None).run,
        "openvino": compile_network(network, options).run,
        "int8": compile_network(network, options, int8=True).run,
    }


def model_encoders(name: str, folder: Path) -> dict[str, Encoder]:
    """The encoder of a model with each runtime."""
    return {
        "torch": load_encoder(name, compiled_cache=folder, compiled=False),
        "openvino": load_encoder(name, compiled_cache=folder),
        "int8": load_encoder(f"{name}-int8", compiled_cache=folder),
    }


def measure_speed(
    report: BenchmarkReport,
    name: str,
    runtimes: dict[str, EncodeFunction],
    side: tuple[int, int],
    rounds: int,
    seconds: float,
) -> None:
    """Pictures per second for each batch size, and the cosine of each runtime to torch."""
    pictures = probe_images(max(BATCH_SIZES), side)
    reference = runtimes["torch"](pictures)
    for size in BATCH_SIZES:
        batch = np.ascontiguousarray(pictures[:size])
        rates = measure_alternately(
            {key: measure_rate(run, batch, seconds) for key, run in runtimes.items()},
            rounds,
            unit="/s",
        )
        report.row(
            network=name, batch=size, **rates,
            openvino_by_torch=ratio(rates["openvino"], rates["torch"]),
            int8_by_torch=ratio(rates["int8"], rates["torch"]),
        )  # fmt: skip
    for key in RUNTIMES[1:]:
        cosines = (reference * runtimes[key](pictures)).sum(axis=1)
        report.note(
            f"{name}, {key}: cosine to torch on {len(pictures)} generated pictures: "
            f"minimum {cosines.min():.6f}, median {np.median(cosines):.6f}."
        )
        if key == "openvino":
            report.goal(f"{name}: minimum cosine of fp32 to torch", float(cosines.min()), 0.9999)


def measure_rate(
    run: EncodeFunction, batch: NDArray[np.uint8], seconds: float
) -> Callable[[], float]:
    """A function that measures pictures per second over about so many seconds."""
    run(batch)
    times = max(1, round(seconds / _seconds(run, batch, 1)))
    return lambda: len(batch) * times / _seconds(run, batch, times)


def _seconds(run: EncodeFunction, batch: NDArray[np.uint8], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        run(batch)
    return time.perf_counter() - began


def measure_recall(report: BenchmarkReport, folder: Path, encoders: dict[str, Encoder]) -> None:
    """recall@1 and recall@5 of a labelled folder, with fp32 and with int8."""
    products, queries = table(folder / "catalogue.csv"), table(folder / "queries.csv")
    paths, query_files = photos(folder), [folder / query["query"] for query in queries]
    expected = [query["expected_sku"] for query in queries]
    pictures = [
        (product["sku"], paths.index(folder / image))
        for product in products
        for image in product["images"].split("|")
    ]
    vectors = {key: encode_files(encoders[key], paths) for key in ("openvino", "int8")}
    for key, catalogue in vectors.items():
        similarities = encode_files(encoders[key], query_files) @ catalogue.T
        ranks = [
            rank_of(row, pictures, sku) for row, sku in zip(similarities, expected, strict=True)
        ]
        report.row(
            collection=folder.name, queries=len(queries), model=encoders[key].name,
            recall_at_1=share_within(ranks, 1), recall_at_5=share_within(ranks, 5),
        )  # fmt: skip
    cosines = (vectors["openvino"] * vectors["int8"]).sum(axis=1)
    report.note(
        f"{folder.name}: cosine of int8 to fp32: median {np.median(cosines):.3f}, "
        f"5th percentile {np.quantile(cosines, 0.05):.3f}."
    )


def encode_files(encoder: Encoder, paths: list[Path]) -> NDArray[np.float32]:
    """Unit vectors of files, decoded in batches of 32; shape (files, dim)."""
    rows = [
        encoder.encode_pictures(opened(paths[start : start + 32]))
        for start in range(0, len(paths), 32)
    ]
    return np.concatenate(rows)


def rank_of(
    similarities: NDArray[np.float32], pictures: list[tuple[str, int]], expected: str
) -> int:
    """Rank of the expected product, 0 for the first; a product counts with its best picture.

    `pictures` are pairs of SKU and position in `similarities`.
    """
    best: dict[str, float] = {}
    for sku, position in pictures:
        # Rounded, so that identical photos tie; the earlier product then ranks first.
        best[sku] = max(best.get(sku, -2.0), round(float(similarities[position]), 5))
    order = sorted(best, key=lambda sku: -best[sku])
    return order.index(expected)


def share_within(ranks: list[int], k: int) -> float:
    """recall@k of ranks that start at 0."""
    return sum(rank < k for rank in ranks) / len(ranks)


if __name__ == "__main__":
    main()
