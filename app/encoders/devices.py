"""The device that encodes, and the precision of its numbers: chosen, and verified before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from app.encoders.base import HALF
from app.encoders.compiled_verification import MIN_COSINE
from app.errors import ModelUnavailable
from app.types import Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MIN_COSINE_HALF = 0.999
"""Minimum cosine of the vectors in 16 bits and those in 32, of every probe picture and text."""

BATCHES = {"cpu": 32, "mps": 64, "cuda": 256}
"""Pictures encoded at once. A graphics card computes a few hardly faster than one; a processor's
cache holds no more."""

_CHOICES = "set LOOKALIKE_DEVICE to auto or cpu"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs, as torch names it, and in which precision ('' for 32 bits)."""

    device: str
    suffix: str = ""

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's weights."""
        return getattr(torch, HALF[self.suffix]) if self.suffix else torch.float32

    @property
    def batch_size(self) -> int:
        """Pictures encoded at once."""
        return BATCHES[self.kind]

    @property
    def is_default(self) -> bool:
        """Whether the model runs on the processor in 32 bits."""
        return self.device == "cpu" and not self.suffix

    def __str__(self) -> str:
        precision = f" in {HALF[self.suffix]}" if self.suffix else ""
        return f"{self.device}{precision}"


def choose_device(wanted: str) -> str:
    """The device of 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.

    'auto' takes a graphics card if torch can use one. Raises ModelUnavailable, with what to do, for
    a device that torch cannot use.
    """
    kind, _, number = wanted.partition(":")
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    if kind == "cuda":
        _check_cuda(int(number or 0))
    if kind == "mps" and not _has_mps():
        raise ModelUnavailable(
            f"LOOKALIKE_DEVICE is mps, which torch {torch.__version__} cannot use here: it needs a "
            f"Mac with Apple silicon; {_CHOICES}."
        )
    return wanted


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())


def _check_cuda(number: int) -> None:
    if torch.version.cuda is None:
        raise ModelUnavailable(
            f"LOOKALIKE_DEVICE is cuda, but torch {torch.__version__} is a build for processors: "
            f"install one with CUDA (pytorch.org says how), or {_CHOICES}."
        )
    if not torch.cuda.is_available():
        raise ModelUnavailable(
            "LOOKALIKE_DEVICE is cuda, but torch finds no graphics card: check that `nvidia-smi` "
            f"lists one and that this process may use it, or {_CHOICES}."
        )
    if number >= torch.cuda.device_count():
        raise ModelUnavailable(
            f"LOOKALIKE_DEVICE is cuda:{number}, but there are {torch.cuda.device_count()} "
            f"graphics cards, numbered from 0; take another number, or {_CHOICES}."
        )


def place(
    model: SentenceTransformer, placement: Placement, probe: Callable[[], Sequence[Vectors]]
) -> None:
    """Move a model from the processor to its place, and verify it there.

    `probe` encodes pictures and texts with the model as it is. Raises ModelUnavailable if the
    device cannot run it, or gives other vectors than the processor does in 32 bits.
    """
    if placement.is_default:
        return
    expected = probe()
    try:
        _use_exact_arithmetic()
        model.to(device=placement.device, dtype=placement.dtype)
        found = probe()
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise ModelUnavailable(
            f"The model cannot run on {placement} ({reason}); {_CHOICES}, or take the model in 32 "
            "bits."
        ) from exc
    _check(placement, min(map(_cosine, found, expected)))


def _use_exact_arithmetic() -> None:
    """Let graphics cards compute in 32 bits what is in 32 bits: by default, convolutions round to
    19, which changes vectors in the third digit."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def _cosine(found: Vectors, expected: Vectors) -> float:
    return float((found * expected).sum(axis=1).min()) if np.isfinite(found).all() else 0.0


def _check(placement: Placement, cosine: float) -> None:
    minimum = MIN_COSINE_HALF if placement.suffix else MIN_COSINE
    if cosine < minimum:
        raise ModelUnavailable(
            f"On {placement} the model has other vectors (cosine {cosine:.5f} to those of the "
            f"processor, at least {minimum} is needed); {_CHOICES}, or take the model in 32 bits."
        )


def moved(pictures: Tensor, device: torch.device) -> Tensor:
    """Prepared pictures on a device. From pinned memory, a graphics card fetches them by itself
    while the processor goes on."""
    if device.type != "cuda":
        return pictures.to(device)
    return pictures.pin_memory().to(device, non_blocking=True)


def in_batches(
    encode: Callable[[Sequence[np.ndarray]], Vectors], items: Sequence[np.ndarray], size: int
) -> list[Vectors]:
    """The rows of items, encoded `size` at a time; where a graphics card has too little memory for
    that many, in halves."""
    rows: list[Vectors] = []
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        try:
            rows.append(encode(batch))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            rows += in_batches(encode, batch, (len(batch) + 1) // 2)
    return rows
