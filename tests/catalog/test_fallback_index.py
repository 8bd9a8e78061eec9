"""pgvector's index: built and measured where the table is large, and answers state its recall."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.catalog import fallback_index
from app.config import Settings
from app.db.queries import embeddings, models, nearest, pgvector_index
from app.errors import BuildRefused
from app.images.decoding import decode
from app.models.backfill import embed
from conftest import Fill
from support.colours import ColourEncoder, choose_colours, photo
from support.exact import assert_exact
from support.fallback import ROWS, ask, healthy, index, insert_equal, names
from support.random_catalogue import fill
from support.shop import add, numbered
from support.sources import ingest, write_source

MANY = 8000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With few exact rows, so that searches use pgvector's index."""
    return settings.model_copy(update={"exact_rows": 20})


# Building


def test_a_small_catalogue_has_no_index_and_lacks_none(
    full: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector_index, "MIN_ROWS", ROWS + 1)
    assert fallback_index.maintain(full.engine) == [] and names(sql) == []
    assert healthy(full) == (True, "none, as for all below 61 embeddings")


def test_an_answer_of_the_index_states_its_measured_recall(indexed: App) -> None:
    found, plan = index(indexed), ask(indexed).plan
    assert found is not None and found.rows == ROWS
    assert plan.path == "pgvector" and plan.reason.startswith("no index has been built yet; ")
    assert f"recall@10 of {found.recall_at_10:.3f}" in plan.reason
    assert f"over {ROWS} embeddings" in plan.reason


def test_status_describes_the_index(indexed: App) -> None:
    ok, value = healthy(indexed)
    assert ok and "31 lists" in str(value) and "recall@10" in str(value)


def test_an_index_is_built_once(indexed: App, sql: psycopg.Connection) -> None:
    before = names(sql)
    assert fallback_index.maintain(indexed.engine) == [] and names(sql) == before


def test_a_picture_added_after_the_build_is_found_by_the_index(indexed: App) -> None:
    add(indexed, {"LATE": [1000]})
    result = ask(indexed)
    assert (result.plan.path, result.matches[0].product.sku) == ("pgvector", "LATE")


def test_a_grown_catalogue_gets_a_new_index_while_the_old_one_answers(
    indexed: App, sql: psycopg.Connection
) -> None:
    add(indexed, numbered(2 * ROWS - 1 - ROWS, first=ROWS))
    assert fallback_index.maintain(indexed.engine) == []
    add(indexed, numbered(1, first=2 * ROWS - 1))
    paths: list[str] = []
    fallback_index.maintain(indexed.engine, lambda message: paths.append(ask(indexed).plan.path))
    assert paths == ["pgvector", "pgvector"]  # while it builds, and before the old one is dropped
    found = index(indexed)
    assert found is not None and (found.rows, found.lists, found.slot) == (2 * ROWS, 44, 2)
    assert names(sql) == ["embedding_m1_ivf2_idx"] and ask(indexed).plan.path == "pgvector"


def test_of_two_indexes_searches_use_the_measured_one(
    indexed: App, sql: psycopg.Connection
) -> None:
    """The other one is being built or was replaced; its probes are not known."""
    with indexed.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        pgvector_index.create(connection, indexed.catalog.model(), 2, ROWS)
    found = index(indexed)
    assert found is not None and found.slot == 1
    with indexed.engine.connect() as connection:
        plan = "\n".join(
            connection.exec_driver_sql(
                "EXPLAIN SELECT picture_id FROM embedding AS e WHERE e.model_id = 1 AND e."
                f"{found.condition} ORDER BY e.vec::halfvec(49) <=> '[1{',0' * 48}]'::halfvec(49)"
                " LIMIT 3"
            ).scalars()
        )
    assert "embedding_m1_ivf2_idx" not in plan
    fallback_index.maintain(indexed.engine)
    assert names(sql) == ["embedding_m1_ivf1_idx"]


def test_lists_are_no_more_than_pgvector_has_memory_for(
    filled_database: Callable[[Fill], str],
) -> None:
    lists = pgvector_index.list_count(10**9, 49, 16 << 20)
    create = "CREATE INDEX ON embedding_m1 USING ivfflat ((vec::halfvec(49)) halfvec_cosine_ops)"
    with psycopg.connect(filled_database(FILLED)) as connection:
        connection.execute("SET maintenance_work_mem = '16MB'")
        connection.execute(f"{create} WITH (lists = {lists})")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="memory required"):
            connection.execute(f"{create} WITH (lists = {2 * lists})")


FILLED = partial(fill, rows=MANY)


def test_the_measured_recall_is_that_of_other_queries(
    filled_database: Callable[[Fill], str], settings: Settings
) -> None:
    settings = settings.model_copy(update={"database_url": filled_database(FILLED)})
    with App(settings, choose=choose_colours) as app:
        fallback_index.maintain(app.engine)
        found, model = index(app), app.catalog.model()
        assert found is not None and found.recall_at_10 >= fallback_index.GOAL
        assert 1 < found.probes < found.lists
        with app.engine.connect() as connection:
            stored = embeddings.vectors(connection, model, range(1, MANY + 1))
            noise = np.random.default_rng(7).standard_normal((100, 49)).astype(np.float32)
            queries = np.stack([stored[n] for n in range(50, 5050, 50)]) + 0.5 * noise / 7
            ids = nearest.probed_ids(connection, model, found.slot, found.probes, queries, 10)
    vectors = np.stack([stored[n] for n in range(1, MANY + 1)])
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10] + 1
    hits = sum(len(set(a) & set(b)) for a, b in zip(ids.tolist(), exact.tolist(), strict=True))
    assert hits / exact.size >= 0.97  # three standard errors of 1,000 neighbours below the goal


# Without a measured index


def test_without_the_index_answers_are_exact_and_give_the_reason(full: App) -> None:
    result = ask(full)
    assert result.plan.path == "exact"
    assert "no index has been built yet; pgvector's index is missing" in result.plan.reason
    assert_exact(full, result, list(range(ROWS)), 1000, 10)
    assert healthy(full) == (False, None)


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'embedding_m1_ivf1_idx'::regclass",
        "REINDEX INDEX embedding_m1_ivf1_idx",
        "COMMENT ON INDEX embedding_m1_ivf1_idx IS 'mine'",
        "COMMENT ON INDEX embedding_m1_ivf1_idx IS '7'",
        "DROP INDEX embedding_m1_ivf1_idx",
    ],
    ids=["invalid", "another file", "another comment", "a number", "missing"],
)  # fmt: skip
def test_an_index_that_was_not_measured_as_it_is_is_not_used_until_it_is(
    indexed: App, sql: psycopg.Connection, spoil: str
) -> None:
    sql.execute(spoil)
    result = ask(indexed)
    assert result.plan.path == "exact" and healthy(indexed) == (False, None)
    assert_exact(indexed, result, list(range(ROWS)), 1000, 10)
    fallback_index.maintain(indexed.engine)
    assert ask(indexed).plan.path == "pgvector" and len(names(sql)) == 1


def test_a_complete_index_is_measured_and_not_built_again(
    indexed: App, sql: psycopg.Connection
) -> None:
    """As that of a dump that was restored by other means."""
    sql.execute("COMMENT ON INDEX embedding_m1_ivf1_idx IS NULL")
    messages: list[str] = []
    fallback_index.maintain(indexed.engine, messages.append)
    assert messages == [] and index(indexed) is not None


def test_pairs_are_refused_for_a_large_table_without_an_index(
    full: App, sql: psycopg.Connection
) -> None:
    """Also for tables that were never analysed, as after a first load."""
    pairs = "SELECT count(*) FROM analytics.near_duplicate_pairs(0.01)"
    assert sql.execute(pairs).fetchone()
    insert_equal(sql, 20_001)
    sql.execute("UPDATE pg_class SET reltuples = -1 WHERE relname = 'embedding_m1'")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is missing"):
        sql.execute(pairs)


# Statements that do not name the index


def test_a_statement_with_the_cast_of_the_index_alone_is_exact(
    indexed: App, sql: psycopg.Connection
) -> None:
    """With pgvector's default of one probe it would find a part of the nearest."""
    query = "'[1" + ",0" * 48 + "]'::halfvec(49)"
    sql.execute("SET enable_seqscan = off")
    ordered = f"SELECT picture_id FROM embedding WHERE model_id = 1 ORDER BY {{}} <=> {query}"
    plan = sql.execute("EXPLAIN " + ordered.format("vec::halfvec(49)") + " LIMIT 30").fetchall()
    assert "_ivf" not in str(plan) and "Sort" in str(plan)


# Loads


def test_an_ingest_builds_the_index_at_its_end(full: App, tmp_path: Path) -> None:
    messages: list[str] = []
    ingest(full, write_source(tmp_path / "in", ROWS + 1), notify=messages.append)
    assert len(messages) == 1 and "Building pgvector's index of colours" in messages[0]
    assert ask(full).plan.path == "pgvector"


def test_an_ingest_whose_index_fails_is_finished_and_logs_it(
    full: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise BuildRefused("no more memory")

    monkeypatch.setattr(pgvector_index, "create", refuse)
    report = ingest(full, write_source(tmp_path / "in", ROWS + 1))
    assert report.added == 1 and "no more memory" in caplog.text
    assert "check --repair" in caplog.text


def test_embedding_under_another_model_builds_its_index(full: App) -> None:
    with full.engine.begin() as connection:
        other = models.register(connection, "other", "1", 49, "other")
        models.maintain(connection, other.id, None)

    def find(sha256: bytes, _places: object) -> object:
        return decode(photo(int.from_bytes(sha256[:3], "big")))

    done = embed(full.engine, other, ColourEncoder(), find)  # type: ignore[arg-type]
    assert (done.embedded, done.left) == (ROWS, 0)
    with full.engine.connect() as connection:
        assert pgvector_index.measured(connection, other.id) is not None


def test_a_role_that_does_not_own_the_tables_builds_nothing(
    full: App, sql: psycopg.Connection, settings: Settings
) -> None:
    sql.execute("CREATE ROLE plain_loader; GRANT USAGE ON SCHEMA public TO plain_loader")
    sql.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
                " TO plain_loader")  # fmt: skip
    try:
        url = f"{settings.database_url}&options=-c%20role%3Dplain_loader"
        plain = settings.model_copy(update={"database_url": url})
        with App(plain, choose=choose_colours) as app:
            assert fallback_index.maintain(app.engine) == []
            fallback_index.maintain(full.engine)
            assert ask(app).plan.path == "pgvector"
    finally:
        sql.execute("DROP OWNED BY plain_loader; DROP ROLE plain_loader")
