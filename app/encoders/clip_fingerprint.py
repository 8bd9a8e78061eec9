"""What decides the vectors of a CLIP: its preprocessing, its settings, its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer

from app.encoders.preprocessing import Pixels, from_settings
from app.images.decoding import DECODING

_CODE = "3"
"""Raised by hand whenever its encoder gives other vectors than before from the same weights."""

_LEVELS = 2.01
"""Grey levels of 255 that rounding may make between our pixels and the stock processor's."""

# Settings that change a vector without changing the weights; the rest of a configuration (versions,
# paths, training options) may differ between two copies of one model.
_TELLING = frozenset({
    "text_config", "vision_config", "hidden_act", "layer_norm_eps", "num_attention_heads",
    "patch_size", "image_size", "eos_token_id",
    "do_resize", "size", "shortest_edge", "longest_edge", "height", "width", "resample",
    "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std",
})  # fmt: skip
_TELLING_WORDS = ("Red wool coat, size 42", "ÉTÉ naïve, 靴 👟", "a" * 3000, "")


def input_side(model: SentenceTransformer) -> int | None:
    """One and a half times the side the processor scales to: 53 dB from whole photographs."""
    processor = getattr(model.processor, "image_processor", model.processor)
    sides = _telling(processor.to_dict()).get("size")
    if not isinstance(sides, Mapping) or not sides:
        return None
    return 3 * max(int(side) for side in sides.values()) // 2


def own_pixels(model: SentenceTransformer) -> Pixels | None:
    """Our preprocessing, if it does what the model's processor does; seen on pictures, not read."""
    processor = getattr(model.processor, "image_processor", model.processor)
    pixels = from_settings(processor.to_dict())
    if pixels is None:
        return None
    for probe in _noise():
        stock = model.preprocess([probe])
        if set(stock) - {"modality"} != {"pixel_values"} or stock.get("modality") != "image":
            return None
        ours = pixels.normalised([pixels.prepare(probe)])
        theirs = stock["pixel_values"].numpy()
        level = pixels.factor / min(pixels.std)
        if ours.shape != theirs.shape or np.abs(ours - theirs).max() > _LEVELS * level:
            return None
    return pixels


def _noise() -> list[Image.Image]:
    """Pictures on which every difference shows: wide, tall, odd, smaller than any input."""
    rng = np.random.default_rng(0)
    shapes = ((97, 331, 3), (500, 377, 3), (31, 29, 3))
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def fingerprint(model: SentenceTransformer, reads_words: bool, own: Pixels | None) -> str:
    """sha256 over what decides a vector, equal for copies of one model saved differently.

    `own` is our preprocessing, if it is used: a library that comes to do something else, so that
    its processor takes over, makes another model.
    """
    processor = getattr(model.processor, "image_processor", model.processor)
    settings: list[Any] = [_CODE, DECODING, input_side(model)]
    settings += [_telling(processor.to_dict()), _telling(model.config.to_dict())]
    settings += [module.get_config_dict() for module in list(model)[1:]]
    settings += [] if own else ["its own processor"]
    if reads_words:
        tokens = model.preprocess([{"text": text} for text in _TELLING_WORDS])["input_ids"]
        settings += [sorted(model.tokenizer.get_vocab().items()), tokens.tolist()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _telling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change a vector, at every depth."""
    return {
        key: _telling(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if key in _TELLING and value is not None
    }
