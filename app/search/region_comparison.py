"""Compares the windows of a photo with the pictures of the catalogue.

The index nominates pictures for all windows in one call, and PostgreSQL compares them in one
statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.config import Settings
from app.db.queries import window_matches
from app.index.file_store import IndexFiles
from app.search import planner
from app.search.fast_path import FastPath, NotAnswered
from app.search.missing_parts import windows_of_missing_parts
from app.search.query_encoder import round_query
from app.search.retrieval import (
    OpenBuild,
    RetrievalRequest,
    nominate_windows,
    open_build,
    similarities,
)
from app.types import Build, Model, Vector, Vectors
from app.vectors import round_to_float16

NEAREST = 5
"""Products nearest to the whole photo that are looked at: the first decides whether it leaves no
doubt, the last helps to tell whether a product fills it."""


class Comparison(Protocol):
    """Compares vectors with the pictures of the catalogue, whatever the filters of a query."""

    model: Model

    def nearest(self, whole: Vector) -> Sequence[float]:
        """The cosine similarities of a vector (dim,) to the NEAREST products, the best first; fewer
        if there are fewer."""

    def best(
        self, vectors: Vectors, near: Vectors, whole: Vector, *, at_best: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """The best cosine similarity of each unit vector (n, dim) to a picture, (n,), and by how
        much at most it is more similar to one than `whole`, (n,); `at_best`: to its best one.

        Compared are the pictures nearest to `near`, unit vectors (n, dim), and those that the build
        does not hold. None where more embeddings changed since the build than the settings allow,
        and where there is neither a build nor a small catalogue.
        """


class SnapshotComparison:
    """Compares in the snapshot of a connection."""

    def __init__(
        self, connection: Connection, model: Model, files: IndexFiles, settings: Settings
    ) -> None:
        self.model = model
        self._connection = connection
        self._files = files
        self._settings = settings

    def nearest(self, whole: Vector) -> Sequence[float]:
        """The similarities, by the path that the planner chooses."""
        vector = round_query(whole, self.model)
        request = RetrievalRequest(self.model, vector, NEAREST, connection=self._connection)
        found = planner.find(request, self._files, self._settings)
        return similarities(found.candidates.hits, NEAREST)

    def best(
        self, vectors: Vectors, near: Vectors, whole: Vector, *, at_best: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """The best similarities and gains, by the newest build or among all of few pictures."""
        request = RetrievalRequest(self.model, vectors[0], 1, connection=self._connection)
        opened = open_build(request, self._files)
        build, max_fresh = None, self._settings.exact_rows
        nominated = np.empty((len(vectors), 0), np.int64)
        if isinstance(opened, OpenBuild):
            build, max_fresh = opened.build, self._settings.max_delta_rows
            nominated, missing = nominate_windows(opened.index, near)
            if missing:
                others = windows_of_missing_parts(
                    self._connection, self.model, build, near, missing, self._settings.exact_rows
                )
                nominated = np.hstack([nominated, others])
        return window_matches.best_similarities(
            self._connection, self.model, build, round_to_float16(vectors), nominated,
            round_query(whole, self.model), max_fresh=max_fresh, at_best=at_best,
        )  # fmt: skip


class FastComparison:
    """Compares by the last build, in a statement each. Raises NotAnswered if several are needed."""

    def __init__(
        self, fast_path: FastPath, model: Model, build: Build, known: Sequence[float] | None
    ) -> None:
        """`known` is what `nearest` returns for the whole picture, None if it is not known."""
        self.model = model
        self._fast_path = fast_path
        self._build = build
        self._known = known

    def nearest(self, whole: Vector) -> Sequence[float]:
        """The similarities, which a statement reads if they are not known yet."""
        if self._known is not None:
            return self._known
        vector = round_query(whole, self.model)
        found = self._fast_path.find(self.model, self._build, vector, NEAREST)
        if found is None:
            raise NotAnswered
        return similarities(found.candidates.hits, NEAREST)

    def best(
        self, vectors: Vectors, near: Vectors, whole: Vector, *, at_best: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The best similarities and gains by the last build."""
        return self._fast_path.best_similarities(
            self.model, self._build, round_to_float16(vectors), near,
            round_query(whole, self.model), at_best=at_best,
        )  # fmt: skip
