"""File layouts of models: which one a folder has, and why others are refused.

Imports nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from app.errors import ModelUnavailable

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"

HUGGING_FACE_MODELS = ("clip", "siglip", "siglip2")
"""`model_type` of the models of transformers that are loaded without `modules.json`."""

_PICTURES_ONLY = ("clip_vision_model", "siglip_vision_model", "siglip2_vision_model")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


class Layout(Enum):
    """Which library wrote a folder."""

    SENTENCE_TRANSFORMERS = "sentence-transformers"
    HUGGING_FACE = "transformers"
    OPEN_CLIP = "open_clip"


def layout_of(folder: Path) -> Layout:
    """The layout of a model's folder.

    Raises ModelUnavailable if it holds none that can be loaded, or pickled weights only.
    """
    if (folder / "modules.json").is_file():
        _refuse_pickles(folder)
        return Layout.SENTENCE_TRANSFORMERS
    config = _config(folder)
    kind, own_code = config.get("model_type"), "auto_map" in config
    if (folder / OPEN_CLIP_CONFIG).is_file() and (own_code or kind not in HUGGING_FACE_MODELS):
        _check_open_clip_weights(folder)
        return Layout.OPEN_CLIP
    if own_code:
        raise ModelUnavailable(
            f"The model in {folder} needs code of its own, which is never run; take a model of "
            "CLIP, SigLIP or open_clip, or one saved by sentence-transformers."
        )
    if kind in HUGGING_FACE_MODELS:
        _refuse_pickles(folder)
        return Layout.HUGGING_FACE
    raise ModelUnavailable(_unsupported(folder, kind))


def is_complete(folder: Path) -> bool:
    """Whether a folder has the configuration and weights of some layout; an interrupted download
    has not."""
    if (folder / "modules.json").is_file() or (folder / "config.json").is_file():
        return any(folder.rglob("*.safetensors"))
    return (folder / OPEN_CLIP_CONFIG).is_file() and (folder / OPEN_CLIP_WEIGHTS).exists()


def _config(folder: Path) -> Mapping[str, Any]:
    """The content of config.json; empty if there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise ModelUnavailable(
            f"{path} cannot be read ({exc}); copy or download the model again."
        ) from exc
    return config if isinstance(config, Mapping) else {}


def _unsupported(folder: Path, kind: object) -> str:
    if kind in _PICTURES_ONLY:
        return (
            f"The model in {folder} is the picture half of a model ({kind}), whose vectors are not "
            "those of the whole one; take the folder of the whole model."
        )
    if kind is not None:
        return (
            f"The model in {folder} is of the kind {kind!r}; without modules.json only "
            f"{', '.join(HUGGING_FACE_MODELS)} can be loaded. Save it with sentence-transformers."
        )
    return (
        f"{folder} holds no model: it has no modules.json, config.json or {OPEN_CLIP_CONFIG}. "
        "Name the folder that has them."
    )


def _check_open_clip_weights(folder: Path) -> None:
    if not (folder / OPEN_CLIP_WEIGHTS).exists():
        raise ModelUnavailable(
            f"{folder} has no {OPEN_CLIP_WEIGHTS}; pickled weights are never loaded. Take a commit "
            "of the model that has this file."
        )


def _refuse_pickles(folder: Path) -> None:
    """Raise ModelUnavailable for pickled weights only.

    A pickle runs code when it is loaded. It is ignored if there are safetensors next to it.
    """
    for pattern in _PICKLES:
        for pickled in folder.rglob(pattern):
            if not any(pickled.parent.glob("*.safetensors")):
                raise ModelUnavailable(
                    f"{pickled} is a pickle, which could run any code; save it as safetensors."
                )
