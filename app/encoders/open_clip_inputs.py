"""What open_clip does with pictures and texts before its networks read them."""

from __future__ import annotations

import html
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoTokenizer, PreTrainedConfig

from app.encoders.dual_encoder import TextTokenizer
from app.encoders.preprocessing import Preprocessor

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class ProcessorSettings:
    """The settings of a preprocessor, in the words of transformers; part of a fingerprint."""

    preprocessor: Preprocessor

    def to_dict(self) -> dict[str, Any]:
        """As of an image processor of transformers."""
        ours = self.preprocessor
        height, width = ours.shape
        size = {"height": height, "width": width}
        if ours.shorter is not None:
            size = {"shortest_edge": ours.shorter}
        return {
            "size": size, "crop_size": {"height": height, "width": width},
            "do_center_crop": ours.shorter is not None, "resample": int(ours.resample),
            "rescale_factor": ours.factor, "image_mean": list(ours.mean),
            "image_std": list(ours.std),
        }  # fmt: skip


def preprocessor_of(settings: Mapping[str, Any], side: int) -> Preprocessor:
    """The preprocessor of a `preprocess_cfg` for an input of `side` x `side` pixels.

    Raises ValueError for a way to resize that is not supported.
    """
    mode = settings.get("resize_mode", "shortest")
    resample = _FILTERS.get(settings.get("interpolation", "bicubic"))
    if mode not in ("shortest", "squash") or resample is None:
        raise ValueError(f"its preprocessing {dict(settings)} is not supported")
    red, green, blue = (float(value) for value in settings.get("mean", _MEAN))
    r, g, b = (float(value) for value in settings.get("std", _STD))
    return Preprocessor(
        side if mode == "shortest" else None, (side, side), resample, 1 / 255,
        (red, green, blue), (r, g, b), exact=True, rounds_crop=True,
    )  # fmt: skip


def tokenizer_of(folder: Path, settings: Mapping[str, Any], *, padded: bool) -> TextTokenizer:
    """The tokenizer in a folder, for a `text_cfg`. Raises ImportError without the package ftfy."""
    # With a configuration of no model: the folder's own may name code of the model.
    tokenizer = AutoTokenizer.from_pretrained(
        folder, config=PreTrainedConfig(), local_files_only=True, trust_remote_code=False
    )
    options = dict(settings.get("tokenizer_kwargs") or {})
    default = "whitespace" if settings.get("hf_tokenizer_name") else "lower"
    clean = _cleaner(str(options.pop("clean", default)))
    if options:
        raise ValueError(f"its tokenizer_kwargs {options} are not supported")
    return TextTokenizer(tokenizer, int(settings.get("context_length", 77)), padded, clean)


def _cleaner(kind: str) -> Callable[[str], str]:
    try:
        import ftfy
    except ImportError as exc:
        raise ImportError("the package ftfy is not installed") from exc

    def repaired(text: str) -> str:
        return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())

    def lower(text: str) -> str:
        return repaired(text).lower()

    def canonical(text: str) -> str:
        words = repaired(text).replace("_", " ").translate(_NO_PUNCTUATION).lower()
        return " ".join(words.split())

    cleaners = {"whitespace": repaired, "lower": lower, "canonicalize": canonical}
    if kind not in cleaners:
        raise ValueError(f"its way to clean texts, {kind!r}, is not supported")
    return cleaners[kind]
