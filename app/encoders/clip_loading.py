"""Opens the model in a folder, of any layout, without running code from that folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from app.encoders.model_layouts import Layout, layout_of

# Observed when loading a broken, incomplete or unsupported folder.
LOADING_ERRORS = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError,
    safetensors.SafetensorError,
)  # fmt: skip


_EXTRAS = {"ftfy": "openclip", "sentencepiece": "siglip"}
"""Packages that only some models need, and the extra of Lookalike that brings each."""


def open_model(folder: Path) -> SentenceTransformer:
    """The model on the processor in 32 bits, from safetensors only.

    Raises ModelUnavailable for a layout that cannot be loaded, and one of LOADING_ERRORS.
    """
    layout = layout_of(folder)
    with _without_messages():
        model = _open(folder, layout)
    _check_vocabulary(model)
    return model


def _open(folder: Path, layout: Layout) -> SentenceTransformer:
    if layout is Layout.HUGGING_FACE:
        from app.encoders.dual_encoder import open_hugging_face

        return open_hugging_face(folder)
    if layout is Layout.OPEN_CLIP:
        from app.encoders.open_clip import open_open_clip

        return open_open_clip(folder)
    return SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True, "dtype": torch.float32},
    )


def missing_package(folder: Path, exc: ImportError) -> str:
    """The message about a package that a model needs."""
    text = " ".join(str(exc).split()).lower()
    for package, extra in _EXTRAS.items():
        if package in text:
            return (
                f"The model in {folder} needs the package {package}; "
                f"install it with `pip install 'lookalike[{extra}]'`."
            )
    return f"The model in {folder} needs a package that cannot be imported ({text[:200]})."


@contextmanager
def _without_messages() -> Iterator[None]:
    """Without the progress bars and warnings of transformers, which are not for our users."""
    bars = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _check_vocabulary(model: SentenceTransformer) -> None:
    """Raise LookupError when files of the tokenizer are missing: all texts would be equal."""
    expected = getattr(getattr(model.config, "text_config", None), "vocab_size", 0)
    if model.supports("text") and len(model.tokenizer) < expected // 2:
        raise LookupError(f"its vocabulary has {len(model.tokenizer)} entries of {expected}")
