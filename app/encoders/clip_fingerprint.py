"""Fingerprint of a CLIP model, over all that decides its vectors, and its preprocessing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer

from app.encoders.dual_encoder import DualEncoderModule
from app.encoders.preprocessing import Preprocessor, preprocessor_from_config
from app.images.decoding import DECODING

_CODE = "3"
"""Incremented by hand whenever `ClipEncoder` computes other vectors from the same weights."""

_MAX_LEVELS = 2.01
"""Maximum difference, in levels of 255, between our pixels and the stock processor's."""

# Settings that change vectors without changing the weights. The rest of a configuration (versions,
# paths, training options) may differ between two copies of one model.
_VECTOR_SETTINGS = frozenset({
    "text_config", "vision_config", "hidden_act", "layer_norm_eps", "num_attention_heads",
    "patch_size", "image_size", "eos_token_id",
    "do_resize", "size", "shortest_edge", "longest_edge", "height", "width", "resample",
    "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std",
})  # fmt: skip

_PROBE_TEXTS = ("Red wool coat, size 42", "ÉTÉ naïve, 靴 👟", "a" * 3000, "")


def input_side(model: SentenceTransformer) -> int | None:
    """One and a half times the size that the processor resizes to; None if it has none.

    Photographs shrunk to that give the network's pixels with a PSNR of 53 dB.
    """
    sides = _vector_settings(_processor(model).to_dict()).get("size")
    if not isinstance(sides, Mapping) or not sides:
        return None
    return 3 * max(int(side) for side in sides.values()) // 2


def own_preprocessor(model: SentenceTransformer) -> Preprocessor | None:
    """Our preprocessing, if it gives the pixels of the model's processor on probe pictures, or if
    the model has no other."""
    module = model[0]
    if isinstance(module, DualEncoderModule) and module.preprocessor is not None:
        return module.preprocessor
    preprocessor = preprocessor_from_config(_processor(model).to_dict())
    if preprocessor is None:
        return None
    for probe in _probes():
        stock = model.preprocess([probe])
        if set(stock) - {"modality"} != {"pixel_values"} or stock.get("modality") != "image":
            return None
        ours = preprocessor.normalised([preprocessor.prepare(probe)])
        theirs = stock["pixel_values"].numpy()
        level = preprocessor.factor / min(preprocessor.std)
        if ours.shape != theirs.shape or np.abs(ours - theirs).max() > _MAX_LEVELS * level:
            return None
    return replace(preprocessor, exact=isinstance(module, DualEncoderModule))


def _probes() -> list[Image.Image]:
    """Noise, on which every difference shows: wide, tall, odd, and smaller than any input."""
    rng = np.random.default_rng(0)
    shapes = ((97, 331, 3), (500, 377, 3), (31, 29, 3))
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def fingerprint(model: SentenceTransformer, reads_words: bool, own: Preprocessor | None) -> str:
    """sha256 over all that decides a vector, equal for copies of one model saved differently.

    `own` is our preprocessing, if it is used. If a new version of the library gives other pixels,
    its processor is used instead, and the fingerprint is another one.
    """
    settings: list[Any] = [_CODE, DECODING, input_side(model)]
    for config in (_processor(model), model.config):
        settings.append(_vector_settings(config.to_dict()))
    settings += [module.get_config_dict() for module in list(model)[1:]]
    settings += [] if own else ["its own processor"]
    settings += ["exact pixels"] if own and own.exact else []
    if reads_words:
        tokens = model.preprocess([{"text": text} for text in _PROBE_TEXTS])["input_ids"]
        settings += [sorted(model.tokenizer.get_vocab().items()), tokens.tolist()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _processor(model: SentenceTransformer) -> Any:
    """The stock processor for pictures, which may be part of one for pictures and texts."""
    return getattr(model.processor, "image_processor", model.processor)


def _vector_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that change vectors, at every depth."""
    return {
        key: _vector_settings(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if key in _VECTOR_SETTINGS and value is not None
    }
