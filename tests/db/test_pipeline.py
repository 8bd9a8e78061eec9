"""Pipeline mode: several statements in one round trip, and local work meanwhile."""

from __future__ import annotations

import time

import psycopg
import pytest

from app.bootstrap import App
from app.db.pipeline import open_pipeline
from app.errors import DatabaseUnavailable, SchemaMismatch


def test_a_pipeline_returns_the_results_of_all_its_statements(app: App) -> None:
    with app.engine.connect() as connection, open_pipeline(connection) as pipeline:
        first = pipeline.send("SELECT 1 AS one")
        second = pipeline.send(
            "SELECT %(n)s::int + n AS sum FROM generate_series(1, 2) AS n", {"n": 5}
        )
    assert [row.one for row in first()] == [1]
    assert [row.sum for row in second()] == [6, 7]


def test_the_server_starts_a_large_statement_as_soon_as_it_is_sent(
    app: App, sql: psycopg.Connection
) -> None:
    with app.engine.connect() as connection, open_pipeline(connection) as pipeline:
        pipeline.send(
            "SELECT length(%(much)s) AS long, nextval('product_id_seq')", {"much": "x" * 8_000_000}
        )
        began = time.monotonic()
        while sql.execute("SELECT is_called FROM product_id_seq").fetchone() != (True,):
            assert time.monotonic() < began + 300, "the statement waits for the end of the pipeline"


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_an_error_in_a_pipeline_is_raised_once_translated_and_ends_it(
    app: App, sql: psycopg.Connection, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    with (
        app.engine.connect() as connection,
        pytest.raises(SchemaMismatch, match="nowhere"),
        open_pipeline(connection) as pipeline,
    ):
        pipeline.send("SELECT FROM nowhere")
        # The server reports the error before or after the next statement is sent.
        time.sleep(seconds)
        pipeline.send("INSERT INTO product (sku) VALUES ('A')")
    assert sql.execute("SELECT count(*) FROM product").fetchone() == (0,)
    assert not caplog.records


def test_a_session_terminated_during_a_pipeline_is_reported_lost_and_the_next_works(
    app: App, sql: psycopg.Connection
) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match="cannot be reached"),
        app.engine.connect() as connection,
        connection.begin(),
        open_pipeline(connection) as pipeline,
    ):
        pipeline.send("SELECT 1 AS one")
        backend = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        pipeline.send("SELECT 2 AS two")
    with app.engine.connect() as connection, open_pipeline(connection) as pipeline:
        result = pipeline.send("SELECT 3 AS three")
    assert result()[0].three == 3


def test_a_connection_is_usable_after_a_failed_pipeline(app: App) -> None:
    with app.engine.connect() as connection:
        with (
            pytest.raises(DatabaseUnavailable, match="too long"),
            connection.begin(),
            open_pipeline(connection) as pipeline,
        ):
            pipeline.send("SET LOCAL statement_timeout = 50")
            pipeline.send("SELECT pg_sleep(10) AS slept")
        with connection.begin(), open_pipeline(connection) as pipeline:
            result = pipeline.send("SELECT 1 AS one")
        assert result()[0].one == 1
