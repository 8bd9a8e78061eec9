"""From a folder to a sentence-transformers model, without running code that lies in it."""

from __future__ import annotations

from pathlib import Path

import safetensors
import torch
from sentence_transformers import SentenceTransformer

from app.errors import ModelUnavailable

# What a broken, foreign or half-copied folder has been seen to raise out of the loading code.
BROKEN = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError,
    safetensors.SafetensorError,
)  # fmt: skip


def refuse_pickles(folder: Path) -> None:
    """A pickle runs code when loaded; it is ignored beside safetensors, and refused alone.

    Raises ModelUnavailable for one alone, and for a folder that holds no model.
    """
    if not (folder / "modules.json").is_file():
        raise ModelUnavailable(
            f"{folder} is no sentence-transformers model: it has no modules.json."
        )
    for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt"):
        for pickled in folder.rglob(pattern):
            if not any(pickled.parent.glob("*.safetensors")):
                raise ModelUnavailable(
                    f"{pickled} is a pickle, which could run any code; save it as safetensors."
                )


def open_model(folder: Path) -> SentenceTransformer:
    """The model, from safetensors only. Raises one of BROKEN when it is not whole."""
    model = SentenceTransformer(
        str(folder),
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True, "dtype": torch.float32},
    )
    _check_vocabulary(model)
    return model


def _check_vocabulary(model: SentenceTransformer) -> None:
    """Raises LookupError when the tokenizer's files are missing: it then reads every text alike."""
    known = getattr(getattr(model.config, "text_config", None), "vocab_size", 0)
    if model.supports("text") and len(model.tokenizer) < known // 2:
        raise LookupError(f"its vocabulary has {len(model.tokenizer)} entries of {known}")
