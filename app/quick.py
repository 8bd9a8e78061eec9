"""QuickSearch: answers in one statement what needs nothing out of the ordinary.

It goes on with the build that answered last and asks PostgreSQL, together with everything else,
whether that is still the one to use. Whenever it is not, or anything fails, the search that looks
at one thing after the other answers instead. Only a statement that took too long is an error here
too: trying again would take as long.
"""

from __future__ import annotations

import logging

import numpy as np
import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.ann import AnnIndex
from app.answers import FURTHER, first_look, looks
from app.config import Settings
from app.driver_errors import driver_errors
from app.errors import LookalikeError
from app.index_files import IndexFiles
from app.ranking import settled
from app.store import at_once
from app.values import Build, Model, Vector

_log = logging.getLogger(__name__)


class QuickSearch:
    """Searches through the last build. Safe to use from several threads; keeps no index open.

    `engine` is one of `make_quick_engine`.
    """

    def __init__(self, engine: Engine, files: IndexFiles, settings: Settings) -> None:
        self._engine = engine
        self._files = files
        self._settings = settings
        self.known: tuple[Model, Build] | None = None
        """The model and the build that answered last; every search checks them."""
        self._wider = 1

    def find(self, model: Model, build: Build, vector: Vector, k: int) -> at_once.Found | None:
        """The k nearest products, or None where another search has to answer.

        `vector` has shape (dim,), float32, holding float16 values. Raises DatabaseUnavailable
        where PostgreSQL took too long.
        """
        index = self._files.opened(build)
        if index is None:
            return None
        for n, depth in looks(first_look(k) * self._wider, k * self._wider):
            found = self._look(index, at_once.Look(model, build, vector, n, k), depth)
            if found is None or found.delta_rows > self._settings.max_delta_rows:
                return None
            if settled(found.candidates, k):
                return found
            self._wider = min(2 * self._wider, FURTHER)  # products have many pictures here
        return None

    def _look(self, index: AnnIndex, look: at_once.Look, depth: int) -> at_once.Found | None:
        unit = look.vector / np.float32(np.linalg.norm(look.vector))
        nominees = index.nominate(unit, look.n, depth)
        try:
            raw = self._engine.raw_connection()
        except (psycopg.Error, SQLAlchemyError, LookalikeError) as exc:
            _log.debug("no connection for a quick search: %s", exc)
            return None
        connection = raw.driver_connection
        assert isinstance(connection, psycopg.Connection)
        try:
            if "cluster" not in raw.info:
                raw.info["cluster"] = at_once.cluster(connection)
            return at_once.search(
                connection, look, nominees,
                cluster=raw.info["cluster"], allowed=self._settings.max_delta_rows,
            )  # fmt: skip
        except psycopg.errors.QueryCanceled:
            with driver_errors():
                raise
        except psycopg.Error as exc:
            _log.debug("a quick search failed: %s", exc)
            if connection.closed or connection.broken:
                raw.invalidate()
            return None
        finally:
            raw.close()
