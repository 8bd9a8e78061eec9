"""Compares the vectors of a compiled model with torch's; imports neither torch nor OpenVINO."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.types import Vectors

MIN_COSINE = 0.9999
"""Minimum cosine of OpenVINO's and torch's vectors of every probe image; rounding takes 1e-6."""

PROBE_COUNT = 4
"""Probe images that a model is verified with."""

RunFunction = Callable[[NDArray[np.uint8]], Vectors]
"""uint8 (n, height, width, 3) to float32 unit rows (n, dim), from any number of threads."""


class OutputMismatch(ValueError):
    """The compiled model's vectors are not those of torch."""


def verify(
    run: RunFunction, expected: Vectors, min_cosine: float, pictures: NDArray[np.uint8]
) -> None:
    """Raises OutputMismatch if a compiled model's vectors of pictures, uint8 (n, height, width, 3),
    are not the `expected` ones of torch, (n, dim)."""
    # Two batches of different length: detects a length that was traced as a constant.
    rows = np.concatenate([run(pictures[:1]), run(pictures[1:])])
    if rows.shape != expected.shape or not np.isfinite(rows).all():
        raise OutputMismatch(f"it gives {rows.shape} numbers, or some that are not finite")
    cosine = float((rows * expected).sum(axis=1).min())
    if not cosine >= min_cosine or np.abs(np.linalg.norm(rows, axis=1) - 1).max() > 1e-3:
        raise OutputMismatch(f"its vectors are not those of torch (cosine {cosine:.5f})")
