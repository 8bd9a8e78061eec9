"""Embeddings as the table holds them, 16 bits a number, widened to be computed with."""

from __future__ import annotations

import numpy as np

from app.values import Rows, Vectors


def unit(rows: Rows) -> Vectors:
    """The rows as float32 of length exactly 1, which rounding to 16 bits puts a little off."""
    wide = rows.astype(np.float32)
    wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, np.newaxis]
    return wide
