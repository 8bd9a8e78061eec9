"""The kinds of encoders to test, each with how a small one is written, and pictures for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from app.encoders import hub
from support import small_open_clip as open_clip_models
from support.small_dual_encoders import save_bare_clip, save_naflex, save_siglip, save_siglip2
from support.small_open_clip import save_small_open_clip

COMMIT = hub.PINNED["sentence-transformers/clip-ViT-B-32"]

# Each kind of model, and the file layout of each family that is supported.
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "transformers CLIP": save_bare_clip,
    "SigLIP": save_siglip,
    "SigLIP 2": save_siglip2,
    "SigLIP 2 NaFlex": save_naflex,
    "open_clip CLIP": partial(save_small_open_clip, kind=open_clip_models.CLIP),
    "open_clip SigLIP": partial(save_small_open_clip, kind=open_clip_models.SIGLIP),
}
KINDS = ["clip", "embedded", "fitted", *LAYOUTS]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of coloured noise on a gradient; deterministic."""
    rng = np.random.default_rng([width, height, seed])
    gradient = np.linspace(0, 120, height)[:, None, None]
    noise = rng.integers(0, 120, (height, width, 3)) + gradient
    return Image.fromarray(noise.astype(np.uint8))


def mixed(count: int) -> list[Image.Image]:
    return [picture(30 + 37 * n % 400, 20 + 53 * n % 300, n) for n in range(count)]
