"""The pictures of the catalogue that the windows of a photo are compared with.

The index nominates them in one call, and one statement in PostgreSQL reads their vectors and those
of all that changed since the build.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from sqlalchemy import Connection

from app.config import Settings
from app.db.queries import window_matches
from app.index.file_store import IndexFiles
from app.search import planner
from app.search.fast_path import FastPath, NotAnswered
from app.search.index_swap import OpenBuild, open_build
from app.search.missing_parts import windows_of_missing_parts
from app.search.query_encoder import round_query
from app.search.retrieval import (
    RetrievalRequest,
    nominate_windows,
    similarities,
)
from app.types import Build, EmbeddingRows, Model, Vector, Vectors

NEAREST = 5
"""Products nearest to the whole photo that are looked at: the first decides whether it leaves no
doubt, the last helps to tell whether a product fills it."""


class Comparison(Protocol):
    """Compares vectors with the pictures of the catalogue, whatever the filters of a query."""

    model: Model

    def nearest(self, whole: Vector) -> Sequence[float]:
        """The cosine similarities of a vector (dim,) to the NEAREST products, the best first; fewer
        if there are fewer."""

    def pictures(self, near: Vectors) -> EmbeddingRows | None:
        """The vectors (n, dim) of the pictures nearest to `near`, unit vectors (m, dim), and of
        those that the build does not hold.

        None where more embeddings changed since the build than the settings allow, and where there
        is neither a build nor a small catalogue.
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

    def pictures(self, near: Vectors) -> EmbeddingRows | None:
        """The vectors of what the newest build nominates, or of all of few pictures."""
        request = RetrievalRequest(self.model, near[0], 1, connection=self._connection)
        opened = open_build(request, self._files)
        build, max_fresh = None, self._settings.exact_rows
        nominated = np.empty((len(near), 0), np.int64)
        if isinstance(opened, OpenBuild):
            build, max_fresh = opened.build, self._settings.max_delta_rows
            nominated, missing = nominate_windows(opened.index, near)
            if missing:
                others = windows_of_missing_parts(
                    self._connection, self.model, build, near, missing, self._settings.exact_rows
                )
                nominated = np.hstack([nominated, others])
        return window_matches.pictures(
            self._connection, self.model, build, nominated, max_fresh=max_fresh
        )


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

    def pictures(self, near: Vectors) -> EmbeddingRows:
        """The vectors of what the last build nominates."""
        return self._fast_path.pictures_near(self.model, self._build, near)
