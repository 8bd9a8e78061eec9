"""Fits `pair_projection.safetensors`, and measures recall with it; a development tool.

    python -m app.encoders.fit_projection fit DATA --date 2026-11-29
    python -m app.encoders.fit_projection evaluate DATA [--cross]

Not part of the public interface of `app.encoders`: only benchmarks import it. DATA holds
`clothing/` and `grocery/`, each with `catalogue.csv` and `queries.csv`. `fit` reads photos and no
labels, and is deterministic: the same photos and date give the same file, except for the last bits
where the linear algebra library differs. `evaluate` prints recall@1 and recall@5 of the shipped
projection, also for queries turned upside down. It was fitted on the photos of `grocery/`; with
--cross, each half of its queries is answered by a projection fitted without the photos of their
products taken in a shop, which tells what to expect for new photos. The projection of version 1 was
made by an earlier version of this file.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from app.encoders.efficientnet_pair import (
    PROJECTION,
    SHARES,
    SIDE,
    Projection,
    joined,
    joined_classes,
    load_projection,
    mean_features,
    project,
    published_networks,
    turned_upright,
)
from app.encoders.square_pictures import square
from app.images.decoding import decode

SOURCES = (
    "catalogue photos (every fifth) of alexeygrigorev/clothing-dataset, CC0-1.0",
    "iconic pictures of marcusklasson/GroceryStoreDataset, MIT",
    "photos of the train split of marcusklasson/GroceryStoreDataset, MIT",
)
"""What `fit` reads, in the order of `fitted_photos`."""

CATALOGUES = 2
"""The first of them are catalogue photos, whose upper side is up."""

CLOTHING_STEP = 5

POWER = 0.2
"""Each component is divided by its variance to this power: 0 is plain PCA, 0.5 full whitening."""

FLOOR = 0.001
"""Added to every variance, as a share of the second largest, so that none is close to zero."""


@dataclass(frozen=True)
class Features:
    """What `mean_features` returns of pictures, and the halves of the same turned upside down."""

    halves: Tensor
    classes: Tensor
    turned_halves: Tensor
    turned_classes: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in one order."""
        return self.halves, self.classes, self.turned_halves, self.turned_classes

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> Features:
        return Features(*(tensor[rows] for tensor in self.tensors()))

    def vectors(self, projection: Projection, *, turned: bool = False) -> NDArray[np.float32]:
        """The encoder's vectors of the pictures."""
        halves = self.turned_halves if turned else self.halves
        classes = self.turned_classes if turned else self.classes
        return np.asarray(project(halves, classes, projection).numpy(), np.float32)


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
    fitting.add_argument("--features", type=Path, help="file that keeps the photos' features")
    measuring = commands.add_parser("evaluate", help="print recall")
    measuring.add_argument("data", type=Path)
    measuring.add_argument("--cross", action="store_true", help="also fit on other photos")
    measuring.add_argument("--projection", type=Path, default=PROJECTION)
    arguments = parser.parse_args()
    if arguments.command == "fit":
        write(arguments.out, arguments.data, arguments.date, arguments.features)
    else:
        evaluate(arguments.data, arguments.projection, cross=arguments.cross)


def write(out: Path, data: Path, date: str, kept: Path | None) -> None:
    """Fit and write the projection.

    The features are read from the file `kept` if it exists, and else written to it.
    """
    sets = fitted_photos(data)
    if kept is not None and kept.exists():
        collections = [Features(*tensors) for tensors in torch.load(kept, weights_only=True)]
    else:
        collections = [features(paths) for paths in sets]
    if kept is not None:
        torch.save([each.tensors() for each in collections], kept)
    provenance: dict[str, object] = {
        "made_by": "app/encoders/fit_projection.py",
        "date": date,
        "sources": [f"{len(paths)} {name}" for name, paths in zip(SOURCES, sets, strict=True)],
        "parameters": {"shares": SHARES, "power": POWER, "floor": FLOOR},
    }
    save_projection(fit(collections), out, provenance)
    print(f"{out}: {out.stat().st_size:,} bytes, {json.dumps(provenance, indent=2)}")


def fitted_photos(data: Path) -> list[list[Path]]:
    """The photos that the projection is fitted on, in three sets of equal weight.

    Photos taken in a shop are among them, because a catalogue's own photos do not vary in what
    varies there: light, hands, shelves.
    """
    return [
        photos(data / "clothing")[::CLOTHING_STEP],
        photos(data / "grocery"),
        query_photos(data / "grocery"),
    ]


def save_projection(projection: Projection, out: Path, provenance: dict[str, object]) -> None:
    """Write a projection in 16 bits, for `load_projection`."""
    values = torch.cat([tensor.flatten() for tensor in projection.tensors()]).half()
    # One tensor only: the library writes several in a different order each time.
    save_file({"projection": values}, out, {"provenance": json.dumps(provenance)})
    out.chmod(0o644)  # safetensors makes it private, but an installed file must be readable


def fit(collections: Sequence[Features]) -> Projection:
    """Fit on collections of pictures with equal weight.

    The first CATALOGUES of them tell what is up; a heap of fruit in a shop has no upper side.
    """
    means, differences = zip(*(joined(each.halves) for each in collections), strict=True)
    turned = [joined(each.turned_halves)[1] for each in collections[:CATALOGUES]]
    centre, turned_centre = (
        torch.stack([part.mean(0) for part in parts]).mean(0)
        for parts in (differences[:CATALOGUES], turned)
    )
    up = torch.nn.functional.normalize(centre - turned_centre, dim=0)
    offset = (centre + turned_centre) / 2
    upright = [turned_upright(part, up, offset) for part in differences]
    classes = [joined_classes(each.classes) for each in collections]
    mean, difference, by_class = (
        torch.from_numpy(principal_components([part.numpy() for part in parts], share))
        for parts, share in zip((means, upright, classes), SHARES, strict=True)
    )
    return Projection(mean, difference, by_class, up, offset)


def principal_components(
    collections: Sequence[NDArray[np.float32]], share: int
) -> NDArray[np.float32]:
    """(channels, share): principal components of rows, slightly whitened (`POWER`).

    The data are not centred, because cosine similarity is measured from the origin.
    """
    weighted = [
        rows / np.sqrt(len(rows) * len(collections), dtype=np.float64) for rows in collections
    ]
    _, lengths, components = np.linalg.svd(np.concatenate(weighted), full_matrices=False)
    values, vectors = lengths[:share] ** 2, components[:share].T
    # A component's sign is arbitrary; it is fixed, so that the file is the same everywhere.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(share)])
    return np.asarray(vectors * (values + FLOOR * values[1]) ** -POWER, np.float32)


def evaluate(data: Path, projection: Path, *, cross: bool) -> None:
    """Print recall@1 and recall@5 for each collection."""
    clothing, grocery = collection(data / "clothing"), collection(data / "grocery")
    shipped = load_projection(projection)
    report("clothing", ranks_of_expected(clothing, shipped))
    report("clothing, turned", ranks_of_expected(clothing, shipped, turned=True))
    report("grocery", ranks_of_expected(grocery, shipped))
    report("grocery, packaged", ranks_of_expected(grocery.only_packaged(), shipped))
    if cross:
        report("grocery, cross", cross_ranks(clothing, grocery, packaged=False))
        report("grocery, packaged, cross", cross_ranks(clothing, grocery, packaged=True))


def cross_ranks(clothing: Collection, grocery: Collection, *, packaged: bool) -> NDArray[np.intp]:
    """Ranks of the expected products, with projections fitted without these products' queries."""
    labelled = grocery.only_packaged() if packaged else grocery
    ranks = np.empty(len(labelled.expected), np.intp)
    for half in (0, 1):
        others = grocery.queries[grocery.expected % 2 != half]
        fitted = fit([clothing.pictures[::CLOTHING_STEP], grocery.pictures, others])
        held_out = labelled.expected % 2 == half
        ranks[held_out] = ranks_of_expected(labelled, fitted)[held_out]
    return ranks


def report(name: str, ranks: NDArray[np.intp]) -> None:
    """Print recall@1 and recall@5 in one line."""
    figures = "  ".join(f"recall@{k} {np.mean(ranks < k):.3f}" for k in (1, 5))
    print(f"{name:24} {len(ranks):4} queries  {figures}")


def ranks_of_expected(
    labelled: Collection, projection: Projection, *, turned: bool = False
) -> NDArray[np.intp]:
    """Rank (0 is first) of each expected product by its best picture; ties go to the earlier.

    `turned`: of queries turned upside down.
    """
    queries = labelled.queries.vectors(projection, turned=turned)
    similarities = queries @ labelled.pictures.vectors(projection).T
    best = np.full((len(similarities), labelled.owner.max() + 1), -2.0, np.float32)
    for column, product in enumerate(labelled.owner):
        best[:, product] = np.maximum(best[:, product], similarities[:, column])
    # Rounded, so that identical photos tie in spite of rounding errors.
    best = best.round(5)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.asarray(np.argmax(order == labelled.expected[:, None], axis=1))


def collection(folder: Path) -> Collection:
    """Read a folder's catalogue and queries, and compute the features of all their pictures."""
    products, queries = table(folder / "catalogue.csv"), table(folder / "queries.csv")
    number = {product["sku"]: place for place, product in enumerate(products)}
    paths = photos(folder)
    place_of = {path: place for place, path in enumerate(paths)}
    images = [
        (place, folder / image)
        for place, product in enumerate(products)
        for image in product["images"].split("|")
    ]
    return Collection(
        features(paths)[np.array([place_of[path] for _, path in images])],
        np.array([place for place, _ in images]),
        features(query_photos(folder)),
        np.array([number[query["expected_sku"]] for query in queries]),
        np.array([product.get("packaged") == "1" for product in products]),
    )


def photos(folder: Path) -> list[Path]:
    """The distinct pictures of a catalogue, in the order of the file."""
    images = (product["images"].split("|") for product in table(folder / "catalogue.csv"))
    return list(dict.fromkeys(folder / image for group in images for image in group))


def query_photos(folder: Path) -> list[Path]:
    """The photos of the queries, in the order of the file."""
    return [folder / query["query"] for query in table(folder / "queries.csv")]


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def features(paths: list[Path]) -> Features:
    """The features of picture files, computed 32 at a time."""
    networks = published_networks()
    upright, turned = [], []
    for start in range(0, len(paths), 32):
        pictures = opened(paths[start : start + 32])
        upright.append(mean_features(networks, [square(picture, SIDE) for picture in pictures]))
        pictures = [picture.transpose(Image.Transpose.ROTATE_180) for picture in pictures]
        turned.append(mean_features(networks, [square(picture, SIDE) for picture in pictures]))
    return Features(*_joined(upright), *_joined(turned))


def _joined(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    halves, classes = zip(*batches, strict=True)
    return torch.cat(halves), torch.cat(classes)


def opened(paths: list[Path]) -> list[Image.Image]:
    """The pictures, decoded as an ingest decodes them."""
    return [decode(path.read_bytes()) for path in paths]


if __name__ == "__main__":
    main()
