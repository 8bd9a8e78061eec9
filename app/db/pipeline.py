"""One trip to the server for several statements, and what may be done while it works on them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import rows, waiting
from sqlalchemy import Connection

from app.db.driver_errors import driver_errors
from app.db.engine import driver_connection

T = TypeVar("T")
Deferred = Callable[[], T]
"""Gives what a statement found, once the trip is over."""


class Pipeline:
    """Statements on their way; the server begins each when it has ended the one before."""

    def __init__(self, driver: psycopg.Connection[Any]) -> None:
        self._driver = driver

    def send(self, sql: str, values: Mapping[str, object] | None = None) -> Deferred[list[Any]]:
        """Hand over a statement, all of it, so that the server is at it while the caller goes on.

        Finds the rows, whose columns have names.
        """
        cursor = self._driver.cursor(binary=True, row_factory=rows.namedtuple_row)
        cursor.execute(sql, values)
        self._driver.wait(_flushed(self._driver.pgconn))
        return cursor.fetchall


@contextmanager
def open_pipeline(connection: Connection) -> Iterator[Pipeline]:
    """Statements that are sent without waiting for the answers of those before; the block ends when
    all have ended. Raises what the first that failed ran into; those after it are not begun."""
    driver = driver_connection(connection)
    first: psycopg.Error | None = None
    with driver_errors():
        try:
            with driver.pipeline():
                try:
                    yield Pipeline(driver)
                except psycopg.Error as exc:
                    first = exc  # ending the pipeline finds that the rest was not begun
        except psycopg.Error as exc:
            first = first or exc
        if first is not None:
            raise first


def _flushed(
    connection: psycopg.pq.abc.PGconn,
) -> Generator[waiting.Wait, waiting.Ready | int, None]:
    """In a pipeline libpq keeps what is small, and sends of what is large as much as fits."""
    while connection.flush():
        if (yield waiting.Wait.RW) & waiting.Ready.R:
            connection.consume_input()
