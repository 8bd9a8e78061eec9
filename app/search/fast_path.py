"""FastPath: answers a common search in one SQL statement.

Reuses the last build; the same statement checks that the build is still current. If it is not, or
if anything fails, `find` returns None and the planner answers in several statements. The exception
is a statement that timed out: that is an error here too, because a second try would take as long.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.db.driver_errors import driver_errors
from app.db.queries import single_statement
from app.db.queries.nearest import EVERYTHING, FilterClause, is_complete
from app.db.queries.single_statement import PageExtras, StatementRequest, StatementResult
from app.errors import LookalikeError
from app.index.faiss_index import AnnIndex
from app.index.file_store import IndexFiles
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
)
from app.types import Build, Model, Vector

DEEP_SHARE = 0.4
"""From this share of the pictures of a flat index on, filtering afterwards takes less time than
searching among those that pass."""

DISTANCE_US, TEST_US, NOMINEE_US = 0.1, 0.01, 4.0
"""Microseconds of processor time: to compare the query with a row of inverted lists, to look up
whether a row passes, and for a nominee in PostgreSQL. They decide how a filtered search begins."""

_log = logging.getLogger(__name__)


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
        self._widening = Widening(RETRY_FACTOR)
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
        fetch = index_fetch(k, excluded, hidden, passed)
        if not filter_clause.condition:
            return self._nearest(index, request, fetch)
        cached = self._filters.get(filter_clause)
        if cached is None:
            return None
        request = replace(request, listed=cached.snapshot)
        try:
            return self._first_complete(index, request, _filtered_rounds(fetch, cached, index))
        except single_statement.FilterListOutdated:
            self._filters.forget(filter_clause)
            return None

    def _nearest(
        self, index: AnnIndex, request: StatementRequest, fetch: IndexFetch
    ) -> StatementResult | None:
        """The result without a filter. Where both rounds are incomplete, as they are among very
        many copies of one picture, a larger first round would not have been complete either."""
        rounds = list(fetch_rounds(fetch, factor=self._widening.factor))
        result = self._first_complete(index, request, rounds)
        if result is not None:
            self._widening.record(sufficed=result.fetched == rounds[0].n)
        return result

    def _first_complete(
        self, index: AnnIndex, request: StatementRequest, rounds: Iterable[FetchRound]
    ) -> StatementResult | None:
        """The result of the first round that is complete; None if no round is, if one fails, or if
        the delta is too large."""
        for fetch_round in rounds:
            result = self._run(index, replace(request, n=fetch_round.n), fetch_round)
            if result is None or result.delta_rows > self._settings.max_delta_rows:
                return None
            if is_complete(result.candidates, request.k):
                deeper = fetch_round.selector is None
                return replace(result, deeper=deeper, fetched=fetch_round.n)
        return None

    def _run(
        self, index: AnnIndex, request: StatementRequest, fetch_round: FetchRound
    ) -> StatementResult | None:
        """One round: the statement's result, None if it failed or the build is not current."""
        nominees = nominate(index, request.vector, fetch_round)
        try:
            with self._pooled() as pooled:
                connection = _driver(pooled)
                if "cluster" not in pooled.info:
                    pooled.info["cluster"] = single_statement.cluster(connection)
                result = single_statement.search(
                    connection, request, nominees.ids, nominees.seen_to,
                    cluster=pooled.info["cluster"], max_delta_rows=self._settings.max_delta_rows,
                    known=nominees.known,
                )  # fmt: skip
        except NotAnswered:
            return None
        if result is None:
            self.last_build = None  # it is no longer current
        return result

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


def _filtered_rounds(
    fetch: IndexFetch, cached: CachedFilter, index: AnnIndex
) -> Iterator[FetchRound]:
    """The fetch rounds of a filtered search.

    If a deeper round that is filtered afterwards takes less time, and those that pass lay near
    recent queries, it comes first. The others search among all pictures that pass.
    """
    share = min(cached.pictures / max(index.rows, 1), 1.0)
    if share:
        deeper = deep_round(fetch, share, cached.selector)
        if _is_faster(index, deeper, fetch, share) and not cached.far.skips():
            yield deeper
            cached.far.failed()  # incomplete: those that pass lie far away
    yield from fetch_rounds(fetch, cached.selector)


def _is_faster(index: AnnIndex, deeper: FetchRound, fetch: IndexFetch, share: float) -> bool:
    """Whether a filtered search among the nearest lists, deep enough for a share of rows that
    pass, takes less time than one among all rows that pass."""
    if index.kind == "flat":
        return share >= DEEP_SHARE
    compared_us = DISTANCE_US * index.rows * index.probed_share(deeper.depth, fetch.passed)
    nominees = max(deeper.n, index.pool_behind(fetch.passed, deeper.depth))
    deeper_us = compared_us + NOMINEE_US * share * nominees
    passing_us = (DISTANCE_US * share + TEST_US) * index.rows
    nominees = max(initial_fetch(fetch.depth), index.pool_behind(fetch.passed, fetch.depth))
    return deeper_us < passing_us + NOMINEE_US * nominees
