"""Loads a sentence-transformers model from a folder, without running code from that folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from app.errors import ModelUnavailable

# Observed when loading a broken, incomplete or unsupported folder.
LOADING_ERRORS = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError,
    safetensors.SafetensorError,
)  # fmt: skip


def refuse_pickles(folder: Path) -> None:
    """Raise ModelUnavailable for a folder without a model, or with pickled weights only.

    A pickle runs code when it is loaded. It is ignored if there are safetensors next to it.
    """
    if not (folder / "modules.json").is_file():
        raise ModelUnavailable(
            f"{folder} is not a sentence-transformers model: it has no modules.json."
        )
    for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt"):
        for pickled in folder.rglob(pattern):
            if not any(pickled.parent.glob("*.safetensors")):
                raise ModelUnavailable(
                    f"{pickled} is a pickle, which could run any code; save it as safetensors."
                )


def open_model(folder: Path) -> SentenceTransformer:
    """The model, from safetensors only. Raises one of LOADING_ERRORS."""
    with _without_messages():
        model = SentenceTransformer(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    _check_vocabulary(model)
    return model


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
