"""pgvector's index in the small catalogues of tests: made, looked up, and seen in the status."""

from __future__ import annotations

import psycopg
import pytest

from app.bootstrap import App
from app.catalog import fallback_index
from app.db.queries import pgvector_index
from app.db.queries.pgvector_index import MeasuredIndex
from app.operations.health import status
from app.types import Query, SearchResult
from support.colours import photo


def build_pgvector_index(app: App) -> None:
    """Build and measure the index of a catalogue of at least ten pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgvector_index, "MIN_ROWS", 10)
        assert fallback_index.maintain(app.engine)


ROWS = 60


def index(app: App) -> MeasuredIndex | None:
    with app.engine.connect() as connection:
        return pgvector_index.measured(connection, 1)


def names(sql: psycopg.Connection) -> list[str]:
    """The names of the indexes of vectors."""
    statement = """SELECT indexname FROM pg_indexes WHERE tablename = 'embedding_m1'
        AND indexdef ~ 'USING (hnsw|ivfflat)' ORDER BY 1"""
    return [row[0] for row in sql.execute(statement)]


def ask(app: App, seed: int = 1000) -> SearchResult:
    return app.search.search(Query(picture=photo(seed)))


def healthy(app: App) -> tuple[bool, object]:
    """The status check of pgvector's index: ok and value."""
    checks = status(app.engine, app.files, app.settings).checks
    (index_check,) = [each for each in checks if each.name == "pgvector_index"]
    return index_check.ok, index_check.value


def insert_equal(sql: psycopg.Connection, rows: int) -> None:
    """Insert pictures that no product shows, all with the same embedding."""
    sql.execute(
        "WITH created AS (INSERT INTO picture (sha256, width, height, thumbnail)"
        " SELECT sha256(n::text::bytea), 1, 1, '' FROM generate_series(1, %s) AS n"
        " RETURNING id) INSERT INTO embedding (model_id, picture_id, vec)"
        " SELECT 1, id, ('[1' || repeat(',0', 48) || ']')::halfvec FROM created",
        [rows],
    )
