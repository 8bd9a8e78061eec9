"""Trips to the server: several statements without a wait between them, and work meanwhile."""

from __future__ import annotations

import time

import psycopg
import pytest

from app.bootstrap import App
from app.db.pipeline import open_pipeline
from app.errors import DatabaseUnavailable, SchemaMismatch


def test_a_trip_brings_the_answers_of_all_its_statements(app: App) -> None:
    with app.engine.connect() as connection, open_pipeline(connection) as trip:
        first = trip.send("SELECT 1 AS one")
        second = trip.send("SELECT %(n)s::int + n AS sum FROM generate_series(1, 2) AS n", {"n": 5})
    assert [row.one for row in first()] == [1]
    assert [row.sum for row in second()] == [6, 7]


def test_the_server_works_on_a_large_statement_as_soon_as_it_is_sent(
    app: App, sql: psycopg.Connection
) -> None:
    with app.engine.connect() as connection, open_pipeline(connection) as trip:
        trip.send(
            "SELECT length(%(much)s) AS long, nextval('product_id_seq')", {"much": "x" * 8_000_000}
        )
        began = time.monotonic()
        while sql.execute("SELECT is_called FROM product_id_seq").fetchone() != (True,):
            assert time.monotonic() < began + 300, "the statement waits for the trip to end"


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_what_fails_on_a_trip_is_said_once_and_as_elsewhere_and_ends_it(
    app: App, sql: psycopg.Connection, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    with (
        app.engine.connect() as connection,
        pytest.raises(SchemaMismatch, match="nowhere"),
        open_pipeline(connection) as trip,
    ):
        trip.send("SELECT FROM nowhere")
        time.sleep(seconds)  # the server says so before the next is sent, or after
        trip.send("INSERT INTO product (sku) VALUES ('A')")
    assert sql.execute("SELECT count(*) FROM product").fetchone() == (0,)
    assert not caplog.records


def test_a_session_that_is_ended_on_a_trip_is_said_to_be_lost_and_the_next_one_serves(
    app: App, sql: psycopg.Connection
) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match="cannot be reached"),
        app.engine.connect() as connection,
        connection.begin(),
        open_pipeline(connection) as trip,
    ):
        trip.send("SELECT 1 AS one")
        backend = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        trip.send("SELECT 2 AS two")
    with app.engine.connect() as connection, open_pipeline(connection) as trip:
        answer = trip.send("SELECT 3 AS three")
    assert answer()[0].three == 3


def test_a_connection_serves_on_after_a_trip_that_failed(app: App) -> None:
    with app.engine.connect() as connection:
        with (
            pytest.raises(DatabaseUnavailable, match="too long"),
            connection.begin(),
            open_pipeline(connection) as trip,
        ):
            trip.send("SET LOCAL statement_timeout = 50")
            trip.send("SELECT pg_sleep(10) AS slept")
        with connection.begin(), open_pipeline(connection) as trip:
            answer = trip.send("SELECT 1 AS one")
        assert answer()[0].one == 1
