"""Base of the embedded encoders: squares of one size through one compiled network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.encoders.base import EMBEDDED
from app.encoders.compiled_cache import CompileOptions
from app.encoders.compiled_model import Network, compile_network
from app.encoders.embedded_versions import SIDES
from app.encoders.square_pictures import EncoderFunctions, SquarePictureEncoder
from app.images.decoding import DECODING


@dataclass(frozen=True, slots=True)
class EncoderModules:
    """The torch modules of an encoder, for the three `EncoderFunctions`."""

    encode: nn.Module
    map_cells: nn.Module
    pool: nn.Module


class SquareEncoder(SquarePictureEncoder):
    """Encodes pictures on the CPU by a torch network, compiled where that is possible."""

    def __init__(
        self,
        modules: EncoderModules,
        version: str,
        weights: Iterable[Tensor],
        compile_options: CompileOptions | None,
        *,
        int8: bool,
    ) -> None:
        """`version` identifies the code of the modules, `weights` their parameters.

        `compile_options` None: torch encodes. `int8`: quantized to 8 bits, which makes another
        model. Raises ModelUnavailable if the int8 model cannot be built. torch computes feature
        maps.
        """
        side = SIDES[version]
        network = Network(modules.encode, (side, side), _fingerprint(version, side, weights))
        self.compiled = compile_network(network, compile_options, int8=int8)
        self.modules = modules
        functions = EncoderFunctions(
            self.compiled.run, _by_torch(modules.map_cells), _by_torch(modules.pool)
        )
        super().__init__(
            functions, version, self.compiled.fingerprint, str(self.compiled.state), int8=int8
        )


def _by_torch(module: nn.Module) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """A module as a function of arrays."""

    def run(rows: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(torch.from_numpy(rows)).numpy()
        return found

    return run


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
