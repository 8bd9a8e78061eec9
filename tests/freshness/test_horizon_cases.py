"""The horizon where rows are written by other means than our services, or by other hands.

Each test builds an index, lets something happen behind its back, and has numpy judge searches.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from app.bootstrap import App
from app.db.embedded import binaries
from app.db.engine import snapshot
from app.errors import BuildRefused
from app.index import faiss_index
from app.index.faiss_index import FLOAT16
from app.search.planner import find
from app.search.retrieval import RetrievalRequest
from support.judged_searches import PRODUCTS, QUERIES, built, literal, search, search_all, turn
from support.shop import add, numbered
from support.snapshots import differences, read


def turn_all(app: App, sql: psycopg.Connection, first: int) -> None:
    """Give every picture another vector; some equal the query vectors."""
    turn(app, sql, *((place, first + place) for place in range(PRODUCTS)))


def program(name: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [binaries.binary(name), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# Ways to write a row


BY_HAND = {
    "on conflict": "INSERT INTO embedding SELECT model_id, picture_id, %s::halfvec, '3'"
    " FROM embedding WHERE picture_id = %s"
    " ON CONFLICT (picture_id, model_id) DO UPDATE SET vec = excluded.vec, changed_in = '3'",
    "merge": "MERGE INTO embedding AS e USING (SELECT %s::halfvec AS vec, %s::bigint AS id) AS new"
    " ON e.picture_id = new.id WHEN MATCHED THEN UPDATE SET vec = new.vec, changed_in = '3'",
    "the partition itself": "UPDATE embedding_m1 SET vec = %s::halfvec, changed_in = '3'"
    " WHERE picture_id = %s",
}


@pytest.mark.parametrize("way", BY_HAND)
def test_a_row_written_in_any_way_is_found_as_it_is_now(
    app: App, sql: psycopg.Connection, way: str
) -> None:
    built(app)
    sql.execute(BY_HAND[way], [literal(app, QUERIES[0]), 7])
    answer = search(app, QUERIES[0])
    assert (answer.path, answer.delta_rows) == ("faiss", 1)
    assert answer.candidates.hits[0].picture_id == 7


def test_copied_rows_with_old_stamps_are_found(app: App, sql: psycopg.Connection) -> None:
    built(app)
    with sql.transaction():
        rows = sql.execute("SELECT model_id, picture_id, '3'::xid8 FROM embedding").fetchall()
        sql.execute("DELETE FROM embedding_m1")
        columns = "COPY embedding_m1 (model_id, picture_id, changed_in, vec) FROM STDIN"
        with sql.cursor().copy(columns) as copy:
            for seed, row in enumerate(rows, start=QUERIES[0]):
                copy.write_row([*row, literal(app, seed)])
    answer = search_all(app)
    assert (answer.path, answer.delta_rows) == ("faiss", PRODUCTS)


def test_triggers_that_are_off_for_a_session_do_not_hide_its_changes(
    app: App, sql: psycopg.Connection
) -> None:
    built(app)
    sql.execute("SET session_replication_role = replica")
    turn(app, sql, (7, QUERIES[0]), (9, QUERIES[1]))
    answer = search_all(app)
    assert (answer.path, answer.delta_rows) == ("faiss", 2)


# A dump that comes back


@pytest.fixture
def dump(app: App, database_url: str, tmp_path: Path, sql: psycopg.Connection) -> Path:
    """An old dump of the embeddings; all have changed since, and an index was built."""
    add(app, numbered(PRODUCTS))
    file = tmp_path / "embeddings.dump"
    program("pg_dump", "-Fc", "--data-only", "-t", "embedding*", "-f", file, database_url)
    turn_all(app, sql, QUERIES[0] - 3)
    app.indexer.rebuild()
    assert search_all(app).path == "faiss"
    sql.execute("DELETE FROM embedding")
    assert search_all(app).path == "faiss"
    return file


def test_all_rows_of_a_reloaded_dump_are_in_the_delta(
    app: App, database_url: str, dump: Path
) -> None:
    program("pg_restore", "--data-only", "-d", database_url, dump)
    answer = search_all(app)
    assert (answer.path, answer.delta_rows) == ("faiss", PRODUCTS)


def test_no_index_is_built_after_a_dump_was_reloaded_with_triggers_disabled(
    app: App, database_url: str, dump: Path
) -> None:
    """PostgreSQL enables them again without ALWAYS, and the rows kept their old stamps."""
    program("pg_restore", "--data-only", "--disable-triggers", "-d", database_url, dump)
    with pytest.raises(BuildRefused, match="ENABLE ALWAYS"):
        app.indexer.rebuild()


def test_a_build_is_not_used_once_triggers_were_disabled_under_it(
    app: App, database_url: str, dump: Path
) -> None:
    program("pg_restore", "--data-only", "--disable-triggers", "-d", database_url, dump)
    assert search_all(app).path == "exact"


# A partition in other hands


def test_rows_changed_while_their_partition_was_detached_are_found(
    app: App, sql: psycopg.Connection
) -> None:
    built(app)
    sql.execute("ALTER TABLE embedding DETACH PARTITION embedding_m1")
    for place in range(PRODUCTS):
        sql.execute(
            "UPDATE embedding_m1 SET vec = %s::halfvec WHERE picture_id = %s",
            [literal(app, QUERIES[0] - 3 + place), place + 1],
        )
    sql.execute("ALTER TABLE embedding ATTACH PARTITION embedding_m1 FOR VALUES IN (1)")
    search_all(app)
    app.indexer.rebuild()
    assert search_all(app).path == "faiss"


def test_a_build_of_nothing_while_the_partition_was_detached_hides_nothing(
    app: App, sql: psycopg.Connection
) -> None:
    built(app)
    sql.execute("ALTER TABLE embedding DETACH PARTITION embedding_m1")
    app.indexer.rebuild()
    sql.execute("ALTER TABLE embedding ATTACH PARTITION embedding_m1 FOR VALUES IN (1)")
    search_all(app)


def test_rows_changed_while_the_stamp_was_off_are_found(app: App, sql: psycopg.Connection) -> None:
    built(app)
    sql.execute("ALTER TABLE embedding DISABLE TRIGGER embedding_stamp")
    turn_all(app, sql, QUERIES[0] - 3)
    search_all(app)
    sql.execute("ALTER TABLE embedding ENABLE ALWAYS TRIGGER embedding_stamp")
    search_all(app)


def test_a_table_rewritten_in_place_is_searched_in_its_new_state(
    app: App, sql: psycopg.Connection
) -> None:
    """A change of the column type rewrites values without firing triggers."""
    built(app)
    sql.execute("DROP SCHEMA analytics CASCADE")  # its views forbid it
    sql.execute(
        "ALTER TABLE embedding ALTER COLUMN vec TYPE halfvec USING"
        " (subvector(vec, 25, 25)::vector || subvector(vec, 1, 24)::vector)::halfvec"
    )
    search_all(app)


# Open transactions


def test_an_idle_transaction_in_another_database_keeps_the_delta_small(
    app: App, sql: psycopg.Connection, new_database: Callable[[str | None], str]
) -> None:
    """It holds back the snapshot's xmin, but not the set of rows that the build saw."""
    with psycopg.connect(new_database(None)) as other:
        held = other.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        built(app)
        xmin = sql.execute(
            "SELECT pg_snapshot_xmin(snapshot)::text::bigint FROM index_build ORDER BY id DESC"
        ).fetchone()
        assert held is not None and xmin is not None and xmin <= held
        assert search_all(app).delta_rows == 0
        turn(app, sql, (7, QUERIES[0]))
        assert search_all(app).delta_rows == 1


def rounded(similarity: float, shortfall: float, seed: int) -> NDArray[np.float16]:
    """A vector as the table holds it, whose length falls short of 1 by `shortfall` (to 5e-6), and
    whose product with the unit vector along the first two axes is `similarity` (to 1e-6)."""
    dice = np.random.default_rng(seed)
    for _ in range(1000):
        vector = np.empty(49)
        # What is left for the second number is small, where float16 is fine.
        vector[0] = np.float16(similarity * 2**0.5 - dice.uniform(0.0003, 0.0008))
        vector[1] = similarity * 2**0.5 - vector[0]
        rest = dice.standard_normal(47)
        left = (1 - shortfall) ** 2 - vector[0] ** 2 - vector[1] ** 2
        vector[2:] = rest / np.linalg.norm(rest) * left**0.5
        half = vector.astype(np.float16)
        wide = half.astype(np.float64)
        off = np.linalg.norm(wide) - (1 - shortfall)
        if abs(wide[:2].sum() / 2**0.5 - similarity) < 1e-6 and abs(off) < 5e-6:
            return half
    raise AssertionError("no such vector")


def test_rows_that_are_not_quite_unit_are_ranked_by_exact_distance(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16-bit inverted lists rank by inner product: the shortest of these rows is the nearest by
    cosine, and the last one that they would nominate."""
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 8)
    monkeypatch.setattr(faiss_index, "CODES", (FLOAT16,))
    add(app, numbered(60))
    near = [rounded(0.5, 3e-5, seed) for seed in range(30)] + [rounded(0.49998, 9.5e-5, 99)]
    ids = [row[0] for row in sql.execute("SELECT picture_id FROM embedding ORDER BY 1 LIMIT 31")]
    for id_, vector in zip(ids, near, strict=True):
        sql.execute(
            "UPDATE embedding SET vec = %s::halfvec WHERE picture_id = %s",
            [str(vector.tolist()), id_],
        )
    assert app.indexer.rebuild().kind == "ivf"
    query = np.zeros(49, np.float32)
    query[:2] = np.float16(0.5**0.5)
    with snapshot(app.engine) as connection:
        request = RetrievalRequest(app.catalog.model(), query, 1, connection=connection)
        answer = find(request, app.files, app.settings)
        assert differences(read(connection), query, answer.candidates, 1) == [], answer.reason
    assert answer.path == "faiss" and answer.candidates.hits[0].picture_id == ids[-1]
