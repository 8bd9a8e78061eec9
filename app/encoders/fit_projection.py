"""Fits `projection.safetensors`, and measures recall with it; a development tool.

    python -m app.encoders.fit_projection fit DATA --date 2026-11-22
    python -m app.encoders.fit_projection evaluate DATA [--cross]

Not part of the public interface of `app.encoders`: only benchmarks import it. DATA holds
`clothing/` and `grocery/`, each with `catalogue.csv` and `queries.csv`. `fit` reads the catalogue's
photos, never the queries, and is deterministic: the same photos and date give the same file, except
for the last bit of a float16 where the linear algebra library differs. `evaluate` prints recall@1
and recall@5 of the shipped projection. With --cross it also prints those of projections fitted on
the other set and on half of a set, which tell what to expect for new photos.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from app.encoders.efficientnet import PROJECTION, half_features, published_network, square
from app.images.decoding import decode

Features = NDArray[np.float32]
"""Unit features of the halves of pictures: (n, 2, 1280)."""

SOURCES = {
    "clothing": "photos of alexeygrigorev/clothing-dataset, CC0-1.0",
    "grocery": "iconic pictures of marcusklasson/GroceryStoreDataset, MIT",
}

SHARE = 256
"""Dimensions of each half."""

POWER = 0.1
"""Each component is divided by its variance to this power: 0 is plain PCA, 0.5 full whitening."""

FLOOR = 0.001
"""Added to every variance, as a share of the second largest, so that none is close to zero."""


@dataclass(frozen=True)
class Collection:
    """Features of a catalogue's pictures and of labelled queries.

    `owner` (one per picture) and `expected` (one per query) are numbers of products; `packaged`
    has one flag per product.
    """

    pictures: Features
    owner: NDArray[np.intp]
    queries: Features
    expected: NDArray[np.intp]
    packaged: NDArray[np.bool_]

    def only_packaged(self) -> Collection:
        """The pictures and queries of packaged products."""
        pictures, queries = self.packaged[self.owner], self.packaged[self.expected]
        return Collection(
            self.pictures[pictures], self.owner[pictures], self.queries[queries],
            self.expected[queries], self.packaged,
        )  # fmt: skip


def main() -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit", help="write the projection")
    fitting.add_argument("data", type=Path)
    fitting.add_argument("--date", default=datetime.date.today().isoformat())
    fitting.add_argument("--out", type=Path, default=PROJECTION)
    measuring = commands.add_parser("evaluate", help="print recall")
    measuring.add_argument("data", type=Path)
    measuring.add_argument("--cross", action="store_true", help="also fit on other photos")
    measuring.add_argument("--projection", type=Path, default=PROJECTION)
    arguments = parser.parse_args()
    if arguments.command == "fit":
        write(arguments.out, arguments.data, arguments.date)
    else:
        evaluate(arguments.data, arguments.projection, cross=arguments.cross)


def write(out: Path, data: Path, date: str) -> None:
    """Fit on the photos of both catalogues, with equal weight, and write the projection."""
    sets = [photos(data / name) for name in SOURCES]
    provenance = {
        "made_by": "app/encoders/fit_projection.py",
        "date": date,
        "sources": [
            f"{len(paths)} {SOURCES[name]}" for name, paths in zip(SOURCES, sets, strict=True)
        ],
        "parameters": {"share": SHARE, "power": POWER, "floor": FLOOR},
    }
    tensor = torch.from_numpy(fit([features(paths) for paths in sets])).half()
    # One tensor only: the library writes several in a different order each time.
    save_file({"projection": tensor}, out, {"provenance": json.dumps(provenance)})
    out.chmod(0o644)  # safetensors makes it private, but an installed file must be readable
    print(f"{out}: {out.stat().st_size:,} bytes, {json.dumps(provenance, indent=2)}")


def fit(collections: list[Features]) -> Features:
    """(1280, SHARE): principal components of the halves, slightly whitened (`POWER`).

    The data are not centred, because cosine similarity is measured from the origin.
    """
    moment = np.zeros((1280, 1280))
    for pictures in collections:
        halves = pictures.reshape(-1, 1280).astype(np.float64)
        moment += halves.T @ halves / len(halves) / len(collections)
    values, vectors = np.linalg.eigh(moment)
    values, vectors = values[::-1][:SHARE], vectors[:, ::-1][:, :SHARE]
    # An eigenvector's sign is arbitrary; it is fixed, so that the file is the same everywhere.
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), np.arange(SHARE)])
    return np.asarray(vectors * (values + FLOOR * values[1]) ** -POWER, np.float32)


def evaluate(data: Path, projection: Path, *, cross: bool) -> None:
    """Print recall@1 and recall@5 for each collection and projection."""
    clothing, grocery = (collection(data / name) for name in SOURCES)
    projections = {"shipped": load_file(projection)["projection"].float().numpy()}
    if cross:
        odd = np.arange(len(grocery.pictures)) % 2 == 1
        projections["none (2,560 dimensions)"] = np.eye(1280, dtype=np.float32)
        projections["fitted on clothing"] = fit([clothing.pictures])
        projections["fitted on grocery"] = fit([grocery.pictures])
        projections["fitted on the odd half of each"] = fit(
            [clothing.pictures[1::2], grocery.pictures[odd]]
        )
    for name, matrix in projections.items():
        print(name)
        report("clothing", clothing, matrix)
        report("grocery, packaged", grocery.only_packaged(), matrix)
        report("grocery, whole", grocery, matrix)


def report(name: str, labelled: Collection, projection: Features) -> None:
    """Print recall@1 and recall@5 in one line."""
    ranks = ranks_of_expected(labelled, projection)
    figures = "  ".join(f"recall@{k} {np.mean(ranks < k):.3f}" for k in (1, 5))
    print(f"  {name:18} {len(ranks):4} queries  {figures}")


def ranks_of_expected(labelled: Collection, projection: Features) -> NDArray[np.intp]:
    """Rank (0 is first) of each expected product by its best picture; ties go to the earlier."""
    similarities = project(labelled.queries, projection) @ project(labelled.pictures, projection).T
    best = np.full((len(similarities), labelled.owner.max() + 1), -2.0, np.float32)
    for column, product in enumerate(labelled.owner):
        best[:, product] = np.maximum(best[:, product], similarities[:, column])
    # Rounded, so that identical photos tie in spite of rounding errors.
    best = best.round(5)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.asarray(np.argmax(order == labelled.expected[:, None], axis=1))


def project(pictures: Features, projection: Features) -> Features:
    """The encoder's last step: unit rows (n, 2 x SHARE)."""
    rows = (pictures @ projection).reshape(len(pictures), -1)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def collection(folder: Path) -> Collection:
    """Read a folder's catalogue and queries, and compute the features of all their pictures."""
    products, queries = table(folder / "catalogue.csv"), table(folder / "queries.csv")
    number = {product["sku"]: place for place, product in enumerate(products)}
    paths = photos(folder)
    by_path = dict(zip(paths, features(paths), strict=True))
    images = [
        (place, folder / image)
        for place, product in enumerate(products)
        for image in product["images"].split("|")
    ]
    return Collection(
        np.stack([by_path[path] for _, path in images]),
        np.array([place for place, _ in images]),
        features([folder / query["query"] for query in queries]),
        np.array([number[query["expected_sku"]] for query in queries]),
        np.array([product.get("packaged") == "1" for product in products]),
    )


def photos(folder: Path) -> list[Path]:
    """The distinct pictures of a catalogue, in the order of the file."""
    images = (product["images"].split("|") for product in table(folder / "catalogue.csv"))
    return list(dict.fromkeys(folder / image for group in images for image in group))


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def features(paths: list[Path]) -> Features:
    """The features of picture files, computed 32 at a time."""
    network = published_network()
    batches = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    squares = ([square(picture) for picture in opened(batch)] for batch in batches)
    return np.concatenate([half_features(network, batch).numpy() for batch in squares])


def opened(paths: list[Path]) -> list[Image.Image]:
    """The pictures, decoded as an ingest decodes them."""
    return [decode(path.read_bytes()) for path in paths]


if __name__ == "__main__":
    main()
