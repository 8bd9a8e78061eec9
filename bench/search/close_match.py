"""How often a search says "no close match" of absent and of present products, through the service.

    LOOKALIKE_HOME=NEW_FOLDER python -m bench.search.close_match DATA [--divisions 2] [--groceries]

DATA holds `clothing/` and `grocery/`. The categories are divided into two halves at random. For
each half the query photos of its products are asked four times: with all products, and with those
of the other half only, each with the shipped cut-offs and with those that `lookalike calibrate`
fits to the other half. Where the products are absent every answer should be "no close match", else
none. So no category is judged by a cut-off that was calibrated with it. A statement is right if the
product is absent, or is not the first match. Each picture is encoded once.

With `--groceries` they are in the catalogue too, and their query photos, which show shelves, are
asked, packaged and loose ones (every Nth); the halves are those of the groceries then.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.bootstrap import App
from app.db.queries import calibration, models
from app.encoders.base import EncoderChoice
from app.encoders.feature_map import FeatureMap
from app.encoders.loading import choose_encoder
from app.encoders.preprocessing import PreparedPicture
from app.evaluation.calibration_run import calibrate
from app.types import Query, Vectors
from ingest.load import load

TRIED = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)


class EncodedOnce:
    """An encoder whose vectors and maps are kept by the pixels, the vectors in a file too."""

    def __init__(self, encoder: Any, file: Path | None = None) -> None:
        self._encoder, self._file = encoder, file
        self.kept: dict[bytes, Any] = {}
        self.maps: dict[tuple[tuple[int, int], bytes], FeatureMap] = {}
        if file is not None and file.exists():
            with np.load(file) as kept:
                keys = [row.tobytes() for row in kept["keys"]]
                self.kept = dict(zip(keys, kept["vectors"], strict=True))

    def save(self) -> None:
        """Write the vectors to the file."""
        if self._file is not None and self.kept:
            keys = np.stack([np.frombuffer(key, np.uint8) for key in self.kept])
            np.savez(self._file, keys=keys, vectors=np.stack(list(self.kept.values())))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_pictures(self, pictures: Sequence[Any]) -> Vectors:
        return self.encode_prepared([self._encoder.prepare(picture) for picture in pictures])

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        keys = [hashlib.sha256(np.ascontiguousarray(each).tobytes()).digest() for each in prepared]
        new = {key: each for key, each in zip(keys, prepared, strict=True) if key not in self.kept}
        if new:
            vectors = self._encoder.encode_prepared(list(new.values()))
            self.kept |= dict(zip(new, vectors, strict=True))
        return np.stack([self.kept[key] for key in keys])

    def encode_map(self, picture: Image.Image) -> FeatureMap:
        key = picture.size, hashlib.sha256(picture.tobytes()).digest()
        if key not in self.maps:
            self.maps[key] = self._encoder.encode_map(picture)
        return self.maps[key]


def choose_once(file: Path | None, model: str, **options: Any) -> EncoderChoice:
    """As `choose_encoder`, with an encoder that encodes each picture once."""
    choice = choose_encoder(model, **options)
    return EncoderChoice(EncodedOnce(choice.encoder, file), choice.note)


@dataclass(frozen=True)
class Photo:
    """A query photo, its set, and the sku and category of the product shown."""

    path: Path
    kind: str
    sku: str
    category: str


@dataclass(frozen=True)
class Said:
    """What a search said of a photo: under which cut-offs, whether its product was present, whether
    the best match is close, its similarity, and whether it is the product."""

    query: str
    kind: str
    cut_offs: str
    present: bool
    close: bool
    similarity: float
    first: bool


class Shop:
    """A catalogue of real products, some of which are taken out for a while."""

    def __init__(self, app: App, folders: Sequence[Path]) -> None:
        self._app, self._folders = app, folders

    def load(self) -> None:
        """Add what is missing of the catalogue."""
        app = self._app
        for folder in self._folders:
            path = folder / "catalogue.csv"
            load(app.engine, app.catalog, app.encoders, app.limits, path)
        app.indexer.rebuild()

    def take_out(self, skus: Sequence[str]) -> None:
        """Delete products."""
        self._app.catalog.delete(skus)
        self._app.indexer.rebuild()

    def forget_cut_offs(self) -> None:
        """Delete what was calibrated, so that the shipped cut-offs hold."""
        with self._app.engine.begin() as connection:
            calibration.replace(connection, models.require_active(connection).id, ())

    def ask(self, photos: Sequence[Photo], cut_offs: str, *, present: bool) -> Iterator[Said]:
        """What a search says of each photo."""
        self._app.__dict__.pop("search", None)  # a new service has read no calibration yet
        for photo in photos:
            result = self._app.search.search(Query(picture=photo.path.read_bytes(), k=5))
            first = result.matches[0]
            assert first.similarity is not None and result.close is not None
            yield Said(
                photo.path.name, photo.kind, cut_offs, present, result.close, first.similarity,
                first.product.sku == photo.sku,
            )  # fmt: skip


def ask_half(
    app: App, shop: Shop, photos: Sequence[Photo], products: dict[str, str], held: Sequence[str]
) -> list[Said]:
    """What searches say of the photos of the products in half of the categories, `held`."""
    chosen = [photo for photo in photos if photo.category in held]
    shop.forget_cut_offs()
    asked = list(shop.ask(chosen, "shipped", present=True))
    shop.take_out([sku for sku, category in products.items() if category in held])
    asked += shop.ask(chosen, "shipped", present=False)
    general, *own = calibrate(app.engine, app.encoder)
    cut = general.close
    counted = sum(row.close.similarity is not None for row in own)
    print(
        f"without {', '.join(held)}: close from {cut.similarity} by {cut.present} and {cut.absent} "
        f"photos, detected {cut.detected}, false alarms {cut.false_alarms}; {counted} categories "
        "have their own",
        flush=True,
    )
    asked += shop.ask(chosen, "calibrated", present=False)
    shop.load()
    asked += shop.ask(chosen, "calibrated", present=True)
    return asked


def report(asked: Sequence[Said]) -> None:
    """Print the shares and, by the best similarity alone, the curve."""
    for kind in sorted({each.kind for each in asked}):
        for cut_offs in ("shipped", "calibrated"):
            present, absent = (
                [each for each in asked if (each.kind, each.cut_offs, each.present) == chosen]
                for chosen in ((kind, cut_offs, True), (kind, cut_offs, False))
            )
            alarms, detected = (
                [each for each in group if not each.close] for group in (present, absent)
            )
            right = len(detected) + sum(not each.first for each in alarms)
            made = len(alarms) + len(detected)
            print(
                f"{kind}, {cut_offs}: no close match for {len(detected) / len(absent):.3f} of "
                f"{len(absent)} absent and {len(alarms) / len(present):.3f} of {len(present)} "
                f"present ones; right {right / made if made else 1:.3f} of {made}"
            )
        yes, no = (
            np.array([each.similarity for each in group], np.float64) for group in (present, absent)
        )
        for share in TRIED:
            cut = np.quantile(yes, share)
            print(f"  {share:.0%} of present below {cut:.3f}: {np.mean(no < cut):.3f} of absent")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def query_photos(folder: Path, products: dict[str, dict[str, str]], every: int) -> list[Photo]:
    """The query photos of a folder: all clean and packaged ones, and every Nth loose one."""
    photos = []
    for row in read(folder / "queries.csv"):
        product = products[row["expected_sku"]]
        kind = {None: "clean", "1": "packaged", "0": "loose"}[product.get("packaged")]
        path, sku = folder / row["query"], product["sku"]
        photos.append(Photo(path, kind, sku, product["category"]))
    loose = [photo for photo in photos if photo.kind == "loose"]
    return [photo for photo in photos if photo.kind != "loose"] + loose[::every]


def main() -> None:
    """Parse the command line and print the shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--divisions", type=int, default=2)
    parser.add_argument("--groceries", action="store_true")
    parser.add_argument("--every", type=int, default=4, help="of the loose ones, every Nth")
    parser.add_argument("--vectors", type=Path, help="NPZ file that keeps the vectors")
    parser.add_argument("--out", type=Path, help="JSON of every answer")
    arguments = parser.parse_args()
    names = ("clothing", "grocery") if arguments.groceries else ("clothing",)
    folders = [arguments.data / name for name in names]
    products = {row["sku"]: row for row in read(folders[-1] / "catalogue.csv")}
    categories = {sku: row["category"] for sku, row in products.items()}
    photos = query_photos(folders[-1], products, arguments.every)
    asked: list[Said] = []
    with App(choose=partial(choose_once, arguments.vectors)) as app:
        app.initialise()
        shop = Shop(app, folders)
        shop.load()
        for seed in range(arguments.divisions):
            drawn = np.random.default_rng(seed).permutation(sorted(set(categories.values())))
            for side in (0, 1):
                asked += ask_half(app, shop, photos, categories, drawn[side::2].tolist())
            encoder = app.encoder()
            if isinstance(encoder, EncodedOnce):
                encoder.save()
            print(f"after {seed + 1} divisions")
            report(asked)
            if arguments.out:
                rows = [asdict(each) for each in asked]
                arguments.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
