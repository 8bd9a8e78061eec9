"""FastPath: answers a common search in one SQL statement.

Reuses the last build; the same statement checks that the build is still current. If it is not, or
if anything fails, `find` returns None and the planner answers in several statements. The exception
is a statement that timed out: that is an error here too, because a second try would take as long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.db.driver_errors import driver_errors
from app.db.queries import single_statement, vector_lists, window_matches
from app.db.queries.nearest import EVERYTHING, FilterClause
from app.db.queries.single_statement import PageExtras, StatementRequest, StatementResult
from app.db.queries.vector_lists import ListsRequest, ListsResult, Nominated
from app.errors import LookalikeError
from app.index.file_store import IndexFiles
from app.index.nominees import NominatingIndex
from app.search.adaptive_fetch import Widening
from app.search.filter_cache import CachedFilter, FilterCache
from app.search.retrieval import (
    RETRY_FACTOR,
    FetchRound,
    IndexFetch,
    deep_round,
    fetch_rounds,
    index_fetch,
    initial_fetch,
    nominate,
    nominate_each,
    nominate_windows,
)
from app.types import Build, EmbeddingRows, Model, Vector, Vectors

DEEP_SHARE = 0.4
"""From this share of the pictures of a flat index on, filtering afterwards takes less time than
searching among those that pass."""

DISTANCE_US, TEST_US, VECTOR_US, NOMINEE_US = 0.1, 0.01, 0.01, 4.0
"""Microseconds of processor time: to compare the query with a row of inverted lists, to look up
whether a row passes, to compare the query with a vector of 8 bits, and for a nominee in PostgreSQL.
They decide how a filtered search begins."""

_log = logging.getLogger(__name__)


_Request = TypeVar("_Request", StatementRequest, ListsRequest)
_Read = TypeVar("_Read")
_Result = TypeVar("_Result", StatementResult, ListsResult)


class NotAnswered(Exception):
    """One statement is not enough for this query; several have to answer."""


class FastPath:
    """Searches through the last build. Thread-safe; keeps no index open.

    `engine` is one of `make_fast_engine`.
    """

    def __init__(
        self, engine: Engine, files: IndexFiles, settings: Settings, filters: FilterCache
    ) -> None:
        self._engine = engine
        self._filters = filters
        self._files = files
        self._settings = settings
        self.last_build: tuple[Model, Build] | None = None
        """The model and the build of the last answer; every statement checks both."""
        self._widening, self._widening_of_lists = Widening(RETRY_FACTOR), Widening(RETRY_FACTOR)
        """Of the first fetch round: grows where products have many pictures."""

    def find(
        self,
        model: Model,
        build: Build,
        vector: Vector,
        k: int,
        filter_clause: FilterClause = EVERYTHING,
        *,
        excluded: tuple[int, ...] = (),
        hidden: tuple[int, ...] = (),
        passed: tuple[int, ...] = (),
        extras: PageExtras | None = None,
    ) -> StatementResult | None:
        """The k nearest products that pass the filter; None if the planner has to answer.

        The caller then sets `last_build` to the build of that answer.

        `vector` has shape (dim,), float32, holding float16 values; `excluded` are product ids,
        `hidden` picture ids, `passed` the pictures of the excluded products (`NearestRequest`), and
        `extras` is what the page needs besides the details. Raises DatabaseUnavailable if the
        statement timed out.
        """
        index = self._files.opened(build)
        if index is None:
            self.last_build = None
            return None
        request = StatementRequest(
            model, build, vector, 0, k, filter_clause, None, excluded, hidden, passed, extras
        )
        return self._first_complete(index, request, self._run, self._widening)

    def find_lists(self, request: ListsRequest) -> ListsResult | None:
        """The lists of a request; its `n` and `listed` are not read. One search of the index
        nominates for all vectors, and one statement answers. Else as `find`."""
        index = self._files.opened(request.build)
        if index is None:
            self.last_build = None
            return None
        return self._first_complete(index, request, self._run_lists, self._widening_of_lists)

    def _first_complete(
        self,
        index: NominatingIndex,
        request: _Request,
        run: Callable[[NominatingIndex, _Request, FetchRound], _Result | None],
        widening: Widening,
    ) -> _Result | None:
        """The result of the first round that is complete; None if no round is, if one fails, if the
        build is not current, or if the delta is too large.

        Without a filter `widening` makes the first round larger. Where both rounds are incomplete,
        as they are among very many copies of one picture, a larger first one would not have been
        complete either.
        """
        filter_clause, factor = request.filter_clause, widening.factor
        fetch = _fetch(request)
        rounds = fetch_rounds(fetch, factor=factor)
        if filter_clause.condition:
            cached = self._filters.get(filter_clause)
            if cached is None:
                return None
            request = replace(request, listed=cached.snapshot)
            copy_rows = partial(
                self._filters.copy_rows, filter_clause, cached, index, request.build
            )
            rounds = _filtered_rounds(fetch, cached, index, copy_rows)
        try:
            for number, fetch_round in enumerate(rounds):
                result = run(index, replace(request, n=fetch_round.n), fetch_round)
                if result is None or result.delta_rows > self._settings.max_delta_rows:
                    return None
                if result.is_complete(request.k):
                    if not filter_clause.condition:
                        widening.record(sufficed=number == 0)
                    return replace(result, deeper=fetch_round.selector is None)
        except single_statement.FilterListOutdated:
            self._filters.forget(filter_clause)
        return None

    def _run(
        self, index: NominatingIndex, request: StatementRequest, fetch_round: FetchRound
    ) -> StatementResult | None:
        """One round: the statement's result, None if it failed, the build is not current, or a part
        of it did not answer."""
        nominees = nominate(index, request.vector, fetch_round)
        if nominees.missing:
            return None
        return self._current(
            lambda connection, cluster: single_statement.search(
                connection, request, nominees.ids, nominees.seen_to, known=nominees.known,
                cluster=cluster, max_delta_rows=self._settings.max_delta_rows,
            )
        )  # fmt: skip

    def _run_lists(
        self, index: NominatingIndex, request: ListsRequest, fetch_round: FetchRound
    ) -> ListsResult | None:
        """One round of several lists, as `_run`."""
        vectors = [vector for own in request.lists for vector in own]
        every = nominate_each(index, vectors, fetch_round)
        if any(each.missing for each in every):
            return None
        nominated = [Nominated(each.ids, each.seen_to, each.known) for each in every]
        return self._current(
            lambda connection, cluster: vector_lists.search(
                connection, request, nominated,
                cluster=cluster, max_delta_rows=self._settings.max_delta_rows,
            )
        )  # fmt: skip

    def _current(
        self, statement: Callable[[psycopg.Connection[Any], str], _Read | None]
    ) -> _Read | None:
        """The result of a statement, given a connection and its cluster; None if it failed or the
        build is no longer current."""
        try:
            with self._pooled() as pooled:
                connection = _driver(pooled)
                if "cluster" not in pooled.info:
                    pooled.info["cluster"] = single_statement.cluster(connection)
                result = statement(connection, pooled.info["cluster"])
        except NotAnswered:
            return None
        if result is None:
            self.last_build = None
        return result

    def pictures_near(self, model: Model, build: Build, near: Vectors) -> EmbeddingRows:
        """`window_matches.pictures` that a build nominates for `near`, unit vectors (n, dim).
        Raises NotAnswered if the build is not current, or its delta is too large."""
        index = self._files.opened(build)
        if index is None:
            raise NotAnswered
        nominated, missing = nominate_windows(index, near)
        if missing:
            raise NotAnswered
        found = self._current(
            lambda connection, cluster: window_matches.pictures_by_build(
                connection, model, build, nominated,
                cluster=cluster, max_fresh=self._settings.max_delta_rows,
            )
        )  # fmt: skip
        if found is None:
            raise NotAnswered
        return found

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection in autocommit mode, for statements of a search.

        Raises NotAnswered if there is none or a statement fails, but DatabaseUnavailable if one
        timed out.
        """
        with self._pooled() as pooled:
            yield _driver(pooled)

    @contextmanager
    def _pooled(self) -> Iterator[PoolProxiedConnection]:
        try:
            raw = self._engine.raw_connection()
        except (psycopg.Error, SQLAlchemyError, LookalikeError) as exc:
            _log.debug("no connection for a search in one statement: %s", exc)
            raise NotAnswered from exc
        connection = _driver(raw)
        try:
            yield raw
        except psycopg.errors.QueryCanceled:
            with driver_errors():
                raise
        except psycopg.Error as exc:
            _log.debug("a search in one statement failed: %s", exc)
            if connection.closed or connection.broken:
                raw.invalidate()
            raise NotAnswered from exc
        finally:
            raw.close()


def _driver(pooled: PoolProxiedConnection) -> psycopg.Connection[Any]:
    connection = pooled.driver_connection
    assert isinstance(connection, psycopg.Connection)
    return connection


def _fetch(request: StatementRequest | ListsRequest) -> IndexFetch:
    """What the index is asked for; it passes over nothing for several lists."""
    excluded, hidden = request.excluded, request.hidden
    if isinstance(request, StatementRequest):
        return index_fetch(request.k, excluded, hidden, request.passed)
    return IndexFetch(request.k + len(excluded) + len(hidden))


def _filtered_rounds(
    fetch: IndexFetch, cached: CachedFilter, index: NominatingIndex, copy_rows: Callable[[], None]
) -> Iterator[FetchRound]:
    """The fetch rounds of a filtered search.

    If a deeper round that is filtered afterwards takes less time, and those that pass lay near
    recent queries, it comes first. The others search among all pictures that pass, before which
    `copy_rows` is called.
    """
    share = min(cached.pictures / max(index.rows, 1), 1.0)
    if share:
        deeper = deep_round(fetch, share, cached.selector)
        vectors = cached.pictures if index.has_vectors(cached.selector) else None
        if _is_faster(index, deeper, fetch, share, vectors) and not cached.far.skips():
            yield deeper
            cached.far.failed()  # incomplete: those that pass lie far away
    copy_rows()
    yield from fetch_rounds(fetch, cached.selector)


def _is_faster(
    index: NominatingIndex,
    deeper: FetchRound,
    fetch: IndexFetch,
    share: float,
    vectors: int | None = None,
) -> bool:
    """Whether a filtered search among the nearest lists, deep enough for a share of rows that
    pass, takes less time than one among all rows that pass, or among so many `vectors`."""
    if index.kind == "flat":
        return share >= DEEP_SHARE
    compared_us = DISTANCE_US * index.rows * index.probed_share(deeper.depth, fetch.passed)
    nominees = max(deeper.n, index.pool_behind(fetch.passed, deeper.depth))
    deeper_us = compared_us + NOMINEE_US * share * nominees
    if vectors is not None:
        return deeper_us < VECTOR_US * vectors + NOMINEE_US * initial_fetch(fetch.depth)
    passing_us = (DISTANCE_US * share + TEST_US) * index.rows
    nominees = max(initial_fetch(fetch.depth), index.pool_behind(fetch.passed, fetch.depth))
    return deeper_us < passing_us + NOMINEE_US * nominees
