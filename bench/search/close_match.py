"""How often a search says "no close match" of absent and of present products, through the service.

    LOOKALIKE_HOME=NEW_FOLDER python -m bench.search.close_match DATA [--folds 2] [--out FILE]

DATA holds `clothing/`. Its categories are divided into folds. For each fold the catalogue is
calibrated without the fold's categories; then the query photos of these are asked, first without
the categories (every answer should be "no close match") and then with them (none should). So no
category is judged by a cut-off that was fitted to it. Pictures are encoded once.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.bootstrap import App
from app.encoders.base import EncoderChoice
from app.encoders.loading import choose_encoder
from app.encoders.preprocessing import PreparedPicture
from app.evaluation.calibration_run import calibrate
from app.types import Query, Vectors
from ingest.load import load


class EncodedOnce:
    """An encoder whose vectors are kept by the pixels."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.kept: dict[bytes, Any] = {}

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


def choose_once(model: str, **options: Any) -> EncoderChoice:
    """As `choose_encoder`, with an encoder that encodes each picture once."""
    choice = choose_encoder(model, **options)
    return EncoderChoice(EncodedOnce(choice.encoder), choice.note)


def ask(app: App, photos: Sequence[dict[str, Any]], *, present: bool) -> list[dict[str, Any]]:
    """What a search says of each photo."""
    asked = []
    for photo in photos:
        result = app.search.search(Query(picture=photo["path"].read_bytes(), k=5))
        first = result.matches[0]
        asked.append(
            {
                "query": photo["path"].name, "category": photo["category"], "present": present,
                "close": result.close, "confidence": result.confidence,
                "similarity": first.similarity, "first": first.product.sku == photo["sku"],
            }
        )  # fmt: skip
    return asked


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Parse the command line and print the shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON of every answer")
    arguments = parser.parse_args()
    folder = arguments.data / "clothing"
    products = {row["sku"]: row["category"] for row in read(folder / "catalogue.csv")}
    photos = [
        {"path": folder / row["query"], "sku": row["expected_sku"],
         "category": products[row["expected_sku"]]}
        for row in read(folder / "queries.csv")
    ]  # fmt: skip
    categories = sorted(set(products.values()))
    asked = []
    with App(choose=choose_once) as app:
        app.initialise()
        for fold in range(arguments.folds):
            _load(app, folder)
            held = categories[fold :: arguments.folds]
            chosen = [photo for photo in photos if photo["category"] in held]
            app.catalog.delete([sku for sku, category in products.items() if category in held])
            app.indexer.rebuild()
            cuts = calibrate(app.engine, app.encoder)
            print(f"without {', '.join(held)}: {cuts[0].close}", flush=True)
            # A new service has read no calibration yet.
            app.__dict__.pop("search", None)
            asked += ask(app, chosen, present=False)
            _load(app, folder)
            app.indexer.rebuild()
            asked += ask(app, chosen, present=True)
    for present in (False, True):
        said = [each["close"] is False for each in asked if each["present"] is present]
        kind = "present (false alarms)" if present else "absent"
        print(f"no close match for {np.mean(said):.3f} of {len(said)} photos of {kind} products")
    if arguments.out:
        arguments.out.write_text(json.dumps(asked, indent=1))


def _load(app: App, folder: Path) -> None:
    """Add what is missing of the catalogue."""
    load(app.engine, app.catalog, app.encoders, app.limits, folder / "catalogue.csv")


if __name__ == "__main__":
    main()
