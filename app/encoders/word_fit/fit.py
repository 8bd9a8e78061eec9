"""From features and names to a `WordSpace`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from app.encoders.word_fit import directions
from app.encoders.word_fit.directions import Matrix
from app.encoders.word_fit.features import Features
from app.encoders.word_fit.names import Classes, WordNet, all_names, read_lexicon
from app.encoders.word_space import GramIndex, WordSpace


def fit(
    features: Features,
    classes: Matrix,
    wordnet: WordNet,
    networks: Classes,
    provenance: Mapping[str, Any],
) -> WordSpace:
    """The text side; `classes` are the directions of the networks' classes."""
    kinds = directions.kind_directions(features.grocery, features.grocery_kinds)
    kinds |= directions.kind_directions(features.clothing, features.clothing_kinds)
    looks = directions.look_directions(features)
    names = all_names(wordnet, read_lexicon(networks), kinds, looks)
    rows: dict[tuple[str, tuple[tuple[str, float], ...]], int] = {}
    made: list[Matrix] = []
    phrases, places, trust = [], [], []
    for phrase, name in names.items():
        key = name.own, tuple(sorted(name.mixture.items()))
        if key not in rows:
            direction = directions.mixed(name, classes, kinds, looks)
            if direction is None:
                continue
            rows[key] = len(made)
            made.append(direction)
        phrases.append(phrase)
        places.append(rows[key])
        trust.append(name.trust)
    scaled = directions.spread(np.stack(made), _pictures(features))
    return WordSpace(
        scaled, phrases, np.array(places), np.array(trust), GramIndex.of(phrases), provenance
    )


def without_kind(features: Features, kind: str) -> Features:
    """The features without anything of one kind, to be asked for a kind that was never seen."""
    bought, worn = features.grocery_kinds != kind, features.clothing_kinds != kind
    skus = features.clothing_skus[~worn]
    return _where(features, worn, bought, ~np.isin(features.recoloured_skus, skus))


def without_products(features: Features, skus: list[str]) -> Features:
    """The features without these products of clothing."""
    worn = ~np.isin(features.clothing_skus, skus)
    return _where(
        features, worn, features.grocery_kinds != "", ~np.isin(features.recoloured_skus, skus)
    )


def _where(features: Features, worn: Any, bought: Any, drawn: Any) -> Features:
    return replace(
        features,
        clothing=features.clothing[worn],
        clothing_skus=features.clothing_skus[worn],
        clothing_kinds=features.clothing_kinds[worn],
        shown=features.shown[worn],
        grocery=features.grocery[bought],
        grocery_kinds=features.grocery_kinds[bought],
        recoloured=features.recoloured[drawn],
        recoloured_skus=features.recoloured_skus[drawn],
        looks=features.looks[drawn],
    )


def _pictures(features: Features) -> Any:
    """Pictures of both collections with equal weight: as many of each."""
    count = min(len(features.clothing), len(features.grocery))
    step = len(features.clothing) // count
    return np.concatenate([features.clothing[::step][:count], features.grocery[:count]])
