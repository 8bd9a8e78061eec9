"""Directions in the space of pictures: of the network's classes, of kinds and of looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoders.efficientnet_network import FEATURES
from app.encoders.efficientnet_pair import (
    CLASSES,
    PROJECTION,
    SHARES,
    WEIGHTS,
    load_projection,
    published_networks,
)
from app.encoders.word_fit.features import Features, Texts
from app.encoders.word_fit.names import Name
from app.encoders.word_fit.recolour import COLOURS, PATTERNS
from app.types import Vectors

CLASS_SHARE = 0.15
"""Weight of the class probabilities' part of a class's direction; that of the features is 1."""

KIND_RIDGE, COLOUR_RIDGE, PATTERN_RIDGE = 1.0, 0.5, 1.0
"""Added to covariances, as a share of their mean variance."""

SHOWN_WEIGHT = 3.0
"""Weight of the colours that photos show; that of recoloured photos is 1. It and COLOUR_RIDGE were
chosen by cross-fitting on the colours that the script sees, not those that people see."""

CLASSES_BESIDE_KINDS = 0.5
"""Length of the classes' part of a name that has learned kinds too, whose part has 1."""

PLAIN = "plain"

Matrix = NDArray[np.float64]


def class_directions() -> Matrix:
    """Unit rows (CLASSES, dim): the weights of the networks' classifiers, projected as the features
    are that they weigh, and the projected probability of the class.

    The mean of all classes is subtracted from each. The difference of a picture's halves says
    nothing of its class.
    """
    networks, projection = published_networks(), load_projection(PROJECTION)
    total = sum(weight**2 for weight in WEIGHTS) ** 0.5
    weights = [
        _unit(_centred(networks.get_buffer(f"weight_{number}")[:, :, 0, 0].double().numpy()))
        * (weight / total)
        for number, weight in enumerate(WEIGHTS)
    ]
    features = np.concatenate(weights, 1) @ projection.mean.double().numpy()
    assert features.shape == (CLASSES, SHARES[0]) and weights[0].shape[1] == FEATURES
    probabilities = projection.classes.double().numpy()
    shared = _centred(probabilities[:CLASSES] + probabilities[CLASSES:])
    nothing = np.zeros((CLASSES, SHARES[1]))
    return _unit(np.concatenate([features, nothing, CLASS_SHARE * shared], 1))


def kind_directions(vectors: Vectors, kinds: Texts) -> dict[str, Matrix]:
    """A unit vector for each kind: linear discriminants with a regularised covariance within."""
    means = {str(kind): vectors[kinds == kind].mean(0) for kind in np.unique(kinds)}
    scatter = np.concatenate([vectors[kinds == kind] - mean for kind, mean in means.items()])
    inverse = np.linalg.inv(_regularised(scatter.T @ scatter / len(scatter), KIND_RIDGE))
    centre = np.mean(list(means.values()), axis=0)
    return {kind: _unit((mean - centre) @ inverse) for kind, mean in means.items()}


def look_directions(features: Features) -> dict[str, Matrix]:
    """A unit vector for each colour, for each pattern and for none: ridge regression on recoloured
    photos, for colours on how much of them the photos show, too."""
    looks, vectors = features.looks, features.recoloured
    coloured = np.isin(looks, list(COLOURS))
    wanted = np.stack([looks[coloured] == colour for colour in COLOURS], 1)
    shown = (features.clothing, features.shown, SHOWN_WEIGHT)
    colours = _ridge([(vectors[coloured], wanted, 1.0), shown], COLOUR_RIDGE)
    patterned = np.stack([*(looks == pattern for pattern in PATTERNS), coloured], 1)
    patterns = _ridge([(vectors, patterned, 1.0)], PATTERN_RIDGE)
    names = (*COLOURS, *PATTERNS, PLAIN)
    return dict(zip(names, _unit(np.concatenate([colours, patterns])), strict=True))


def _ridge(sets: list[tuple[Vectors, NDArray[np.generic], float]], ridge: float) -> Matrix:
    """(columns, dim): regression of targets on vectors, of several sets with a weight each."""
    covariance: Matrix = np.zeros(())
    together: Matrix = np.zeros(())
    for vectors, targets, weight in sets:
        x, y = _centred(vectors.astype(np.float64)), _centred(targets.astype(np.float64))
        covariance = covariance + weight * (x.T @ x) / len(x)
        together = together + weight * (x.T @ y) / len(x)
    return np.asarray(np.linalg.solve(_regularised(covariance, ridge), together).T)


def _regularised(covariance: NDArray[np.floating[Any]], ridge: float) -> Matrix:
    dim = len(covariance)
    return np.asarray(covariance / (np.trace(covariance) / dim) + ridge * np.eye(dim))


def mixed(
    name: Name, classes: Matrix, kinds: Mapping[str, Matrix], looks: Mapping[str, Matrix]
) -> Matrix | None:
    """The direction of a name at unit length, shape (dim,); None if nothing of it is there."""
    of_classes, learned = np.zeros(classes.shape[1]), np.zeros(classes.shape[1])
    for source, weight in name.mixture.items():
        if source.startswith("class "):
            of_classes += weight * classes[int(source.removeprefix("class "))]
        elif source.startswith("#"):
            learned += weight * looks.get(source[1:], 0.0)
        elif name.own not in kinds or source == f"@{name.own}":
            learned += weight * kinds.get(source[1:], 0.0)
    share = CLASSES_BESIDE_KINDS if learned.any() else 1.0
    total = share * _unit(of_classes) + learned
    return _unit(total) if total.any() else None


def spread(directions: Matrix, vectors: Vectors) -> Matrix:
    """Directions at lengths that give their similarities to pictures one standard deviation."""
    deviations = (vectors @ directions.T).std(0)
    return np.asarray(directions / deviations[:, None])


def _centred(rows: Matrix) -> Matrix:
    return np.asarray(rows - rows.mean(0))


def _unit(rows: Matrix) -> Matrix:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))
