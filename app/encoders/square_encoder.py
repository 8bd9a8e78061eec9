"""Base of the embedded encoders: squares of one size through one compiled network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from torch import Tensor, nn

from app.encoders.base import EMBEDDED, INT8
from app.encoders.compiled_model import CompileOptions, Network, compile_network
from app.encoders.preprocessing import PreparedPicture
from app.errors import NoWords
from app.images.decoding import DECODING
from app.types import Vectors

DIM = 512
"""Length of a vector."""

# Measured on two cores: larger batches do not fit the cache and are a third slower.
_BATCH = 8


class SquareEncoder:
    """Encodes pictures on the CPU, whole and without their ratio. Immutable, so without locks."""

    reads_words = False
    maps_regions = True
    input_side: int | None
    dim = DIM

    def __init__(
        self,
        module: nn.Module,
        side: int,
        version: str,
        weights: Iterable[Tensor],
        compile_options: CompileOptions | None,
        *,
        int8: bool,
    ) -> None:
        """`module` maps squares, uint8 (n, side, side, 3), to float32 unit rows (n, 512).

        `version` identifies its code, `weights` its parameters. `compile_options` None: torch
        encodes. `int8`: quantized to 8 bits, which makes another model. Raises ModelUnavailable if
        the int8 model cannot be built.
        """
        self.side, self.input_side = side, 2 * side
        fingerprint = _fingerprint(version, side, weights)
        self._compiled = compile_network(
            Network(module, (side, side), fingerprint), compile_options, int8=int8
        )
        self.name = EMBEDDED + INT8 if int8 else EMBEDDED
        self.runtime = str(self._compiled.state)
        self.fingerprint = self._compiled.fingerprint
        self.revision = f"{version}-{self.fingerprint[:12]}"

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """RGB pictures of any size to float32 unit rows (n, 512), in order."""
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def prepare(self, picture: Image.Image) -> PreparedPicture:
        """An RGB picture as the network's input: uint8 (side, side, 3)."""
        return square(picture, self.side)

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        """Prepared pictures to float32 unit rows (n, 512), in order."""
        rows = [
            self._compiled.run(np.stack(prepared[start : start + _BATCH]))
            for start in range(0, len(prepared), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Raises NoWords: this model encodes pictures only."""
        raise NoWords


def square(picture: Image.Image, side: int) -> PreparedPicture:
    """The whole picture resized to uint8 (side, side, 3), without keeping its aspect ratio.

    A crop would lose the edges, and padding would waste pixels.
    """
    return resized(picture, (side, side))


def resized(picture: Image.Image, size: tuple[int, int]) -> PreparedPicture:
    """A picture resized to `size` (width, height), as uint8 (height, width, 3)."""
    # A gap of 3 looks the same as a full bicubic resize and is far faster on large pictures.
    shrunk = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(shrunk, dtype=np.uint8)


def normalised(pictures: Tensor) -> Tensor:
    """uint8 (n, height, width, 3) as the networks' input, float32 (n, 3, height, width).

    As by the Lite models (`efficientnet_lite_builder.py` in `tensorflow/tpu`): about -1 to 1.
    """
    return ((pictures.float() - 127.0) / 128.0).permute(0, 3, 1, 2)


def _fingerprint(version: str, side: int, weights: Iterable[Tensor]) -> str:
    digest = hashlib.sha256(f"{EMBEDDED} {version} {side} {2 * side} {DECODING}".encode())
    for tensor in weights:
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
