"""Pipeline mode: several statements in one round trip to the server."""

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
"""Returns the result of a statement; call it after the pipeline has ended."""


class Pipeline:
    """Sends statements; the server executes them in order."""

    def __init__(self, driver: psycopg.Connection[Any]) -> None:
        self._driver = driver

    def send(self, sql: str, values: Mapping[str, object] | None = None) -> Deferred[list[Any]]:
        """Send a statement completely, so that the server executes it while the caller continues.

        The result is the list of its rows, as named tuples.
        """
        cursor = self._driver.cursor(binary=True, row_factory=rows.namedtuple_row)
        cursor.execute(sql, values)
        self._driver.wait(_flushed(self._driver.pgconn))
        return cursor.fetchall


@contextmanager
def open_pipeline(connection: Connection) -> Iterator[Pipeline]:
    """Send statements without waiting for results; the block ends when all have been executed.

    Raises the error of the first statement that failed; the statements after it are not executed.
    """
    driver = driver_connection(connection)
    first: psycopg.Error | None = None
    with driver_errors():
        try:
            with driver.pipeline():
                try:
                    yield Pipeline(driver)
                except psycopg.Error as exc:
                    first = exc  # ending the pipeline raises that the rest was not executed
        except psycopg.Error as exc:
            first = first or exc
        if first is not None:
            raise first


def _flushed(
    connection: psycopg.pq.abc.PGconn,
) -> Generator[waiting.Wait, waiting.Ready | int, None]:
    """Send libpq's buffer: in a pipeline it keeps small statements, and parts of large ones."""
    while connection.flush():
        if (yield waiting.Wait.RW) & waiting.Ready.R:
            connection.consume_input()
