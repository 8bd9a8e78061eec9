"""Arrays of vectors as parameters of statements: halfvec[] in PostgreSQL's binary format.

The driver would write each number of each vector as text, which for the windows of a photo takes
many times as long as the statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from app.types import Vectors


@dataclass(frozen=True, slots=True)
class HalfvecArray:
    """Vectors, shape (n, dim), as a halfvec[]; rounded to float16 unless they are."""

    vectors: Vectors


def register(connection: psycopg.Connection[Any]) -> None:
    """Let a connection send a HalfvecArray; pgvector's types have to be registered."""
    connection.adapters.register_dumper(HalfvecArray, _HalfvecArrayDumper)


class _HalfvecArrayDumper(Dumper):
    format = Format.BINARY
    # The type is left to the cast in the statement, whose oid differs between databases.

    def dump(self, obj: HalfvecArray) -> bytes:
        """The header of an array with one dimension, then each vector with its length in bytes,
        as `array_recv` and `halfvec_recv` read them."""
        assert self.connection is not None
        element = self.connection.adapters.types["halfvec"].oid
        rows, dim = obj.vectors.shape
        if not rows:
            return np.array([0, 0, element], ">i4").tobytes()
        layout = np.dtype(
            [("bytes", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("vec", ">f2", dim)]
        )
        packed = np.zeros(rows, layout)
        packed["bytes"], packed["dim"], packed["vec"] = 4 + 2 * dim, dim, obj.vectors
        return np.array([1, 0, element, rows, 1], ">i4").tobytes() + packed.tobytes()
