"""How fast pictures are encoded by torch, by OpenVINO, and in 8-bit numbers, and what those find.

    python -m bench.encoders.openvino [--model NAME] [--rounds N] [FOLDER ...]

Speed of a network the size of CLIP ViT-B/32 with random weights, which is as fast as a trained one,
and of the model NAME (default: embedded). Each FOLDER holds catalogue.csv (sku, images) and
queries.csv (query, expected_sku): there recall is measured, and how far int8 strays.
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
from bench.harness.side_by_side import Report, in_turn, ratio

BATCHES = (1, 8, 32)
SECONDS = 1.0
"""About how long one measurement takes."""

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
WAYS = ("torch", "openvino", "int8")


class Random(nn.Module):
    """The picture tower of CLIP ViT-B/32, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = CLIPVisionConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            image_size=224, patch_size=32, projection_dim=512,
        )  # fmt: skip
        self.tower = CLIPVisionModelWithProjection(config).eval()

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = (pictures.float() / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
        return nn.functional.normalize(self.tower(pixel_values=pixels).image_embeds, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    report = Report("towers", "Encoding pictures: torch, OpenVINO, int8")
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as folder:
        speed(report, "ViT-B/32, random", random_ways(Path(folder)), (224, 224), given.rounds)
        encoders = model_ways(given.model, Path(folder))
        name = encoders["torch"].name
        side = encoders["torch"].prepare(Image.new("RGB", (64, 64))).shape[:2]
        ways = {way: each.encode_prepared for way, each in encoders.items()}
        speed(report, name, ways, (side[0], side[1]), given.rounds)
        for each in given.folders:
            recall(report, each, encoders)
    report.write()


def random_ways(folder: Path) -> dict[str, Run]:
    """The random network by each way."""
    network = Network(Random().eval(), (224, 224), "random")
    options = CompileOptions(CompiledCache(folder))
    return {
        "torch": compile_network(network, None).run,
        "openvino": compile_network(network, options).run,
        "int8": compile_network(network, options, int8=True).run,
    }


def model_ways(name: str, folder: Path) -> dict[str, Encoder]:
    """A model's encoder by each way."""
    return {
        "torch": load_encoder(name, compiled_cache=folder, compiled=False),
        "openvino": load_encoder(name, compiled_cache=folder),
        "int8": load_encoder(f"{name}-int8", compiled_cache=folder),
    }


def speed(report: Report, name: str, ways: dict[str, Run], side: tuple[int, int], n: int) -> None:
    """Pictures a second at each length of a batch, and how far each way is from torch."""
    pictures = probe_images(max(BATCHES), side)
    exact = ways["torch"](pictures)
    for size in BATCHES:
        batch = np.ascontiguousarray(pictures[:size])
        rates = in_turn({way: timed(run, batch) for way, run in ways.items()}, n, unit="/s")
        by = {way: ratio(rates[way], rates["torch"]) for way in WAYS[1:]}
        report.row(
            network=name, batch=size, **rates,
            openvino_by_torch=by["openvino"], int8_by_torch=by["int8"],
        )  # fmt: skip
    for way in WAYS[1:]:
        cosines = (exact * ways[way](pictures)).sum(axis=1)
        report.note(
            f"{name}, {way}: cosine to torch on {len(pictures)} drawn pictures "
            f"{cosines.min():.6f} at least, {np.median(cosines):.6f} in the middle."
        )
        if way == "openvino":
            report.goal(f"{name}: least cosine of fp32", float(cosines.min()), 0.9999)


def timed(run: Run, batch: NDArray[np.uint8]) -> Callable[[], float]:
    """Measures pictures a second, over so many runs that a clock can tell."""
    run(batch)
    times = max(1, round(SECONDS / _seconds(run, batch, 1)))
    return lambda: len(batch) * times / _seconds(run, batch, times)


def _seconds(run: Run, batch: NDArray[np.uint8], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        run(batch)
    return time.perf_counter() - began


def recall(report: Report, folder: Path, encoders: dict[str, Encoder]) -> None:
    """How many queries find their product first, or among five, in full and in 8 bits."""
    products, queries = table(folder / "catalogue.csv"), table(folder / "queries.csv")
    paths, asked = photos(folder), [folder / query["query"] for query in queries]
    expected = [query["expected_sku"] for query in queries]
    shown = [
        (product["sku"], paths.index(folder / image))
        for product in products
        for image in product["images"].split("|")
    ]
    made = {way: encoded(encoders[way], paths) for way in ("openvino", "int8")}
    for way, catalogue in made.items():
        similar = encoded(encoders[way], asked) @ catalogue.T
        ranks = [rank(row, shown, sku) for row, sku in zip(similar, expected, strict=True)]
        report.row(
            collection=folder.name, queries=len(asked), model=encoders[way].name,
            recall_at_1=share(ranks, 1), recall_at_5=share(ranks, 5),
        )  # fmt: skip
    cosines = (made["openvino"] * made["int8"]).sum(axis=1)
    report.note(
        f"{folder.name}: cosine of int8 to fp32 {np.median(cosines):.3f} in the middle, "
        f"{np.quantile(cosines, 0.05):.3f} or less for one of 20 photos."
    )


def encoded(encoder: Encoder, paths: list[Path]) -> NDArray[np.float32]:
    """Unit rows of files, decoded a few at a time."""
    rows = [
        encoder.encode_pictures(opened(paths[start : start + 32]))
        for start in range(0, len(paths), 32)
    ]
    return np.concatenate(rows)


def rank(similar: NDArray[np.float32], shown: list[tuple[str, int]], expected: str) -> int:
    """How many products are more similar than the one expected, each by its best picture."""
    best: dict[str, float] = {}
    for sku, place in shown:
        # Rounded, so that identical photos tie; the earlier product then counts as before.
        best[sku] = max(best.get(sku, -2.0), round(float(similar[place]), 5))
    order = sorted(best, key=lambda sku: -best[sku])
    return order.index(expected)


def share(ranks: list[int], k: int) -> float:
    return sum(rank < k for rank in ranks) / len(ranks)


if __name__ == "__main__":
    main()
