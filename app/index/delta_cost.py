"""Measures what the changes since a build cost a search: its statement with them and without."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from sqlalchemy import Connection

from app.db.queries import database_info, embeddings, index_delta
from app.types import Build, Model

ROUNDS = 5
"""Each statement runs this often, in turn; the fastest counts, because others share the server."""

NOMINEES = 26
"""Nominees of an ordinary search."""

MIN_ROWS = 100
"""Fewer changed rows cost nothing that can be measured."""


def measure(
    connection: Connection, model: Model, build: Build, rows: int, *, max_delta_rows: int
) -> float:
    """The share by which the `rows` changed rows lengthen the statement of a search: 0 where they
    do not, 1 where it takes twice as long. `connection` is in a snapshot that may use the build."""
    if rows < MIN_ROWS:
        return 0.0
    queries = embeddings.random_vectors(connection, model, 1)
    if not len(queries):
        return 0.0
    snapshot = database_info.current_snapshot(connection)
    nominees = np.array(embeddings.first_ids(connection, model, NOMINEES), np.int64)

    def seconds(compared: Build) -> float:
        began = time.perf_counter()
        index_delta.nearest(
            connection, model, compared, queries[0], nominees, None,
            n=NOMINEES, k=10, excluded=(), known=None, max_delta_rows=max_delta_rows,
        )  # fmt: skip
        return time.perf_counter() - began

    # Nothing that this transaction sees has changed since its own snapshot.
    return share(lambda: seconds(build), lambda: seconds(replace(build, snapshot=snapshot)))


def share(slow: Callable[[], float], fast: Callable[[], float]) -> float:
    """By which share the fastest of several runs of `slow` is above that of `fast` (seconds)."""
    pairs = [(slow(), fast()) for _ in range(ROUNDS + 1)][1:]  # the first run plans and reads
    with_changes, without = (min(column) for column in zip(*pairs, strict=True))
    return float(max(with_changes / max(without, 1e-9) - 1.0, 0.0))
