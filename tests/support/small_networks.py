"""A small network to compile, its pictures, and the files that a cache keeps of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from app.encoders.base import Encoder
from app.encoders.compiled_cache import CompiledCache
from app.encoders.compiled_model import Network
from app.encoders.probe_images import probe_images

SHAPE = (8, 8)


class Small(nn.Module):
    """A minimal encoder: a few weights, unit rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 16)
        nn.init.constant_(self.layer.bias, 0.1)

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.normalize(self.layer(pictures.flatten(1).float() / 255), dim=1)


def network(kind: type[Small] = Small, *, seed: int = 0) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(kind().eval(), SHAPE, f"{kind.__name__} {seed}")


def mixed(encoder: Encoder, count: int) -> list[np.ndarray]:
    height, width, _ = encoder.prepare(Image.new("RGB", (8, 8))).shape
    return list(probe_images(count, (height, width), first=50))


def cached_files(cache: CompiledCache) -> list[Path]:
    return sorted(cache.folder.glob("*.tower"))
