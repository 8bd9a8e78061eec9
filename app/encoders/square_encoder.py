"""Base of the embedded encoders: squares of one size through one compiled network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from torch import Tensor, nn

from app.encoders.base import EMBEDDED
from app.encoders.compiled_cache import CompileOptions
from app.encoders.compiled_model import Network, compile_network
from app.encoders.square_pictures import SquarePictureEncoder
from app.images.decoding import DECODING


class SquareEncoder(SquarePictureEncoder):
    """Encodes pictures on the CPU by a torch network, compiled where that is possible."""

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
        network = Network(module, (side, side), _fingerprint(version, side, weights))
        self.compiled = compile_network(network, compile_options, int8=int8)
        super().__init__(
            self.compiled.run, side, version, self.compiled.fingerprint, str(self.compiled.state),
            int8=int8,
        )  # fmt: skip


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
