"""QuickSearch: answers in one statement what needs nothing out of the ordinary.

It goes on with the build that answered last and asks PostgreSQL, together with everything else,
whether that is still the one to use. Whenever it is not, or anything fails, the search that looks
at one thing after the other answers instead. Only a statement that took too long is an error here
too: trying again would take as long.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.db.driver_errors import driver_errors
from app.db.queries import single_statement
from app.db.queries.nearest import EVERYTHING, FilterClause, is_complete
from app.errors import LookalikeError
from app.index import faiss_index
from app.index.faiss_index import AnnIndex, IdSelector
from app.index.file_store import IndexFiles
from app.search.filter_cache import CachedFilter, FilterCache
from app.search.retrieval import RETRY_FACTOR, fetch_rounds, initial_fetch
from app.types import Build, Model, Vector
from app.vectors import unit

DEEP_SHARE = 0.4
"""From this share of the pictures on, looking deeper into the index and filtering afterwards takes
less time than comparing the query with all that pass."""

_log = logging.getLogger(__name__)


class FastPath:
    """Searches through the last build. Safe to use from several threads; keeps no index open.

    `engine` is one of `make_quick_engine`.
    """

    def __init__(
        self, engine: Engine, files: IndexFiles, settings: Settings, lists: FilterCache
    ) -> None:
        self._engine = engine
        self._lists = lists
        self._files = files
        self._settings = settings
        self.known: tuple[Model, Build] | None = None
        """The model and the build that answered last; every search checks them."""
        self._wider = 1

    def find(
        self, model: Model, build: Build, vector: Vector, k: int, only: FilterClause = EVERYTHING
    ) -> single_statement.StatementResult | None:
        """The k nearest products that pass, or None where another search has to answer, which then
        tells anew which build is known.

        `vector` has shape (dim,), float32, holding float16 values. Raises DatabaseUnavailable
        where PostgreSQL took too long.
        """
        index = self._files.opened(build)
        if index is None:
            self.known = None
            return None
        if only.condition:
            return self._filtered(
                index, single_statement.StatementRequest(model, build, vector, 0, k, only)
            )
        for n, depth in fetch_rounds(initial_fetch(k) * self._wider, k * self._wider):
            found = self._look(
                index, single_statement.StatementRequest(model, build, vector, n, k), depth
            )
            if found is None or found.delta_rows > self._settings.max_delta_rows:
                return None
            if is_complete(found.candidates, k):
                return found
            self._wider = min(2 * self._wider, RETRY_FACTOR)  # products have many pictures here
        return None

    def _filtered(
        self, index: AnnIndex, look: single_statement.StatementRequest
    ) -> single_statement.StatementResult | None:
        listed = self._lists.of(look.filter_clause)
        if listed is None:
            return None
        try:
            for n, depth, only in _filtered_looks(look.k, listed, index):
                found = self._look(index, replace(look, n=n, listed=listed.snapshot), depth, only)
                if found is None or found.delta_rows > self._settings.max_delta_rows:
                    return None
                if is_complete(found.candidates, look.k):
                    return replace(found, deeper=only is None)
                listed.near = listed.near and only is not None
        except single_statement.FilterListOutdated:
            self._lists.forget(look.filter_clause)
        return None

    def _look(
        self,
        index: AnnIndex,
        look: single_statement.StatementRequest,
        depth: int,
        only: IdSelector | None = None,
    ) -> single_statement.StatementResult | None:
        nominees = index.nominate(unit(look.vector), look.n, depth, only=only)
        try:
            raw = self._engine.raw_connection()
        except (psycopg.Error, SQLAlchemyError, LookalikeError) as exc:
            _log.debug("no connection for a quick search: %s", exc)
            return None
        connection = raw.driver_connection
        assert isinstance(connection, psycopg.Connection)
        try:
            if "cluster" not in raw.info:
                raw.info["cluster"] = single_statement.cluster(connection)
            found = single_statement.search(
                connection, look, nominees.ids, nominees.seen_to,
                cluster=raw.info["cluster"], allowed=self._settings.max_delta_rows,
            )  # fmt: skip
            if found is None:
                self.known = None  # it is not the build to use any more
            return found
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


def _filtered_looks(
    k: int, listed: CachedFilter, index: AnnIndex
) -> Iterator[tuple[int, int, IdSelector | None]]:
    """How many pictures to nominate, how thoroughly, and among which."""
    first, share = initial_fetch(k), listed.pictures / max(index.rows, 1)
    if share >= DEEP_SHARE and listed.near:
        yield *faiss_index.deep_search_size(first, k, min(share, 1.0)), None
    yield first, first, listed.selector
    yield first * RETRY_FACTOR, first * RETRY_FACTOR, listed.selector
