"""`app.index.embedding_reader`: all embeddings in one snapshot, validated, with little memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import psycopg
import pytest
from sqlalchemy import text

from app.bootstrap import App
from app.db.engine import snapshot
from app.db.queries import embeddings
from app.errors import BuildRefused, DatabaseUnavailable
from app.index import embedding_reader
from conftest import Fill
from support.index_vectors import most_memory, unit
from support.shop import add, numbered

# What may not be indexed


@pytest.mark.parametrize(
    "harm",
    [
        "ALTER TABLE embedding DISABLE TRIGGER embedding_stamp",
        "ALTER TABLE embedding_m1 DISABLE TRIGGER embedding_stamp",
        "ALTER TABLE embedding ENABLE TRIGGER embedding_stamp",
        "ALTER TABLE embedding_m1 DISABLE TRIGGER ALL; ALTER TABLE embedding_m1 ENABLE TRIGGER ALL",
        "DROP TRIGGER embedding_stamp ON embedding",
        "CREATE TRIGGER zz BEFORE UPDATE ON embedding FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ],
)
def test_without_a_stamp_that_always_fires_no_index_is_built(
    app: App, sql: psycopg.Connection, harm: str
) -> None:
    add(app, numbered(5))
    sql.execute(harm)  # type: ignore[call-overload]
    with pytest.raises(BuildRefused, match="ENABLE ALWAYS TRIGGER"):
        app.indexer.rebuild()


def test_vectors_that_are_not_unit_are_named(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(5))
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_unit_check")
    sql.execute("UPDATE embedding SET vec = l2_normalize(vec) * vec WHERE picture_id = 3")
    with pytest.raises(BuildRefused, match="picture 3"):
        app.indexer.rebuild()


@pytest.mark.parametrize("off_by", [-1, 1])
def test_rows_that_were_counted_and_not_read_are_never_indexed(
    app: App, monkeypatch: pytest.MonkeyPatch, off_by: int
) -> None:
    """Otherwise uninitialised memory would be indexed as vectors."""
    add(app, numbered(10))
    count = embeddings.count_all
    monkeypatch.setattr(embeddings, "count_all", lambda *asked: count(*asked) + off_by)
    with pytest.raises(BuildRefused, match="REINDEX TABLE embedding_m1"):
        app.indexer.rebuild()
    monkeypatch.undo()
    assert app.indexer.rebuild().state == "published", "and the connection is still of use"


def test_a_vector_that_is_a_little_too_long_is_indexed_as_a_unit_vector(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    model = app.catalog.model()
    before = embedding_reader.read_embeddings(app.engine, model).vectors.astype(np.float32)
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_unit_check")
    longer = "(SELECT array_agg(x * 1.008) FROM unnest(vec::vector::real[]) AS x)::halfvec"
    sql.execute(f"UPDATE embedding SET vec = {longer} WHERE picture_id = 3")  # type: ignore[call-overload]
    found = embedding_reader.read_embeddings(app.engine, model)
    lengths = np.linalg.norm(found.vectors.astype(np.float32), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=5e-4)
    order = np.argsort(found.ids)
    np.testing.assert_allclose(found.vectors[order].astype(np.float32), before, atol=1e-3)


def test_a_vector_of_another_dimension_is_refused(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(5))
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_dim_check")
    sql.execute("UPDATE embedding SET vec = '[1,0]' WHERE picture_id = 3")
    with pytest.raises(BuildRefused, match="49"):
        app.indexer.rebuild()


def test_alternating_invalid_vectors_are_refused(app: App, sql: psycopg.Connection) -> None:
    """Their total length equals that of valid vectors."""
    add(app, numbered(5))
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_dim_check")
    for picture, width in ((2, 48), (3, 50)):
        vector = "[1" + ",0" * (width - 1) + "]"
        sql.execute("UPDATE embedding SET vec = %s WHERE picture_id = %s", [vector, picture])
    with pytest.raises(BuildRefused, match="49"):
        app.indexer.rebuild()


# In and out


@pytest.mark.parametrize("rows", [0, 1, 3000])
def test_embeddings_written_by_copy_are_read_unchanged(
    app: App, sql: psycopg.Connection, rows: int
) -> None:
    sql.execute(
        "INSERT INTO picture (sha256, width, height, thumbnail)"
        " SELECT sha256(n::text::bytea), 1, 1, '' FROM generate_series(1, %s) AS n",
        [rows],
    )
    ids = [id_ for (id_,) in sql.execute("SELECT id FROM picture ORDER BY id")]
    vectors = unit(rows, 49)
    model = app.catalog.model()
    with app.engine.begin() as connection:
        embeddings.store(connection, model, dict(zip(ids, vectors, strict=True)))
    found = embedding_reader.read_embeddings(app.engine, model)
    order = np.argsort(found.ids)
    assert found.ids[order].tolist() == ids
    np.testing.assert_allclose(found.vectors[order], vectors, atol=1e-3)


def twenty_thousand(app: App) -> None:
    """Far more embeddings than the connection buffers."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql(TWENTY_THOUSAND)


TWENTY_THOUSAND = (
    "WITH made AS (INSERT INTO picture (sha256, width, height, thumbnail)"
    " SELECT sha256(n::text::bytea), 1, 1, '' FROM generate_series(1, 20000) AS n RETURNING id)"
    " INSERT INTO embedding (model_id, picture_id, vec)"
    " SELECT 1, id, ('[1' || repeat(',0', 48) || ']')::halfvec FROM made"
)


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest,
    filled_database: Callable[[Fill], str],
    new_database: Callable[[str | None], str],
    template: str,
) -> str:
    """Of a test that uses `many`, a copy of a database with twenty thousand embeddings."""
    if "many" in request.fixturenames:
        return filled_database(twenty_thousand)
    return new_database(template)


@pytest.fixture
def many() -> None: ...


@pytest.mark.usefixtures("many")
def test_a_pass_over_the_table_holds_no_copy_of_the_vectors(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_reader, "PAGES_PER_BLOCK", 16)
    with embedding_reader.open_embeddings(app.engine, app.catalog.model()) as stored:
        vectors = 2 * stored.dim * stored.rows
        ids = 8 * stored.rows
        assert most_memory(lambda: [None for _ in stored.blocks()]) < ids + vectors / 3


@pytest.mark.parametrize("together", [1, 3, 64, 10_000])
@pytest.mark.usefixtures("many")
def test_however_many_pages_are_read_at_a_time_all_embeddings_are_read_once(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    sql.execute("DELETE FROM embedding WHERE picture_id BETWEEN 3000 AND 9000")
    sql.execute("UPDATE embedding SET vec = ('[0,1' || repeat(',0', 47) || ']')::halfvec"
                " WHERE picture_id % 11 = 0")  # fmt: skip
    monkeypatch.setattr(embedding_reader, "PAGES_PER_BLOCK", together)
    found = embedding_reader.read_embeddings(app.engine, app.catalog.model())
    expected = dict(sql.execute("SELECT picture_id, vec::vector::real[] FROM embedding").fetchall())
    assert sorted(found.ids.tolist()) == sorted(expected)
    turned = {id_ for id_, vector in expected.items() if vector[1]}
    assert set(found.ids[found.vectors[:, 1] == 1].tolist()) == turned
    assert (found.vectors[found.vectors[:, 1] == 0, 0] == 1).all()


@pytest.mark.usefixtures("many")
def test_all_passes_over_the_table_see_one_snapshot(app: App, sql: psycopg.Connection) -> None:
    with embedding_reader.open_embeddings(app.engine, app.catalog.model()) as stored:
        before = list(stored.blocks())
        sql.execute("UPDATE embedding SET vec = vec WHERE picture_id % 7 = 0")
        sql.execute("DELETE FROM embedding WHERE picture_id % 7 = 1")
        after = list(stored.blocks())
        gone = next(ids for ids, _ in before)[:300]
        assert len(stored.vectors_of(gone)) == 300
    assert len(before) == len(after)
    for (ids, vectors), (later_ids, later_vectors) in zip(before, after, strict=True):
        assert np.array_equal(ids, later_ids) and np.array_equal(vectors, later_vectors)


@pytest.mark.parametrize(
    ("ids", "doubled"),
    [([], False), ([7], False), ([3, 1, 2], False), ([3, 1, 3], True), ([1, 10**12], False),
     ([10**12, 1, 10**12], True), ([-5, 4], False), ([-5, -5], True)],
)  # fmt: skip
def test_a_duplicate_id_is_detected(ids: list[int], doubled: bool) -> None:
    assert embedding_reader._has_duplicates(np.array(ids, dtype=np.int64)) is doubled


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.usefixtures("many")
def test_a_read_ended_by_the_server_is_an_error_and_the_next_one_succeeds(
    app: App, sql: psycopg.Connection, how: str
) -> None:
    model = app.catalog.model()
    with pytest.raises(DatabaseUnavailable), snapshot(app.engine) as connection:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        blocks = embeddings.stream(
            connection, model, range(embeddings.page_count(connection, model))
        )
        next(blocks)
        sql.execute(f"SELECT {how}(%s)", [backend])  # type: ignore[call-overload]
        list(blocks)
    assert len(embedding_reader.read_embeddings(app.engine, model).ids) == 20_000
