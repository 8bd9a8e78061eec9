"""`lookalike check`: each kind of damage is caused, found, and repaired where it is safe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.errors import BadInput, SchemaMismatch
from app.operations.backup import backup
from app.operations.integrity import CheckOptions
from app.operations.restore import restore
from support import servers
from support.integrity_checks import (
    FAKE_HASH,
    REPAIR,
    damage,
    file_of,
    only_finding,
    repaired,
    run_check,
    sources,
)
from support.shop import add

# A healthy catalogue


def test_a_healthy_catalogue_has_no_finding(indexed: App, photos: Path) -> None:
    options = CheckOptions(sources(photos, app=indexed), indexed.encoder, repair=True)
    report = run_check(indexed, options)
    assert report.findings == () and report.left_out == () and report.healthy


def test_an_empty_catalogue_has_no_finding(app: App) -> None:
    assert run_check(app).findings == ()


def test_checks_that_were_left_out_are_reported(app: App) -> None:
    assert [each.split(":")[0] for each in run_check(app).left_out] == [
        "the encoder", "the original pictures",
    ]  # fmt: skip


def test_a_check_without_repair_changes_nothing(indexed: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE product SET identity_key = 'x'")
    file = indexed.files.folder / f"{FAKE_HASH}.faiss"
    file.write_bytes(b"x")
    assert len(run_check(indexed).findings) == len(run_check(indexed).findings) == 2
    assert file.exists()


def test_a_database_of_another_version_is_not_checked(app: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(SchemaMismatch):
        run_check(app)


# Rows


def test_a_picture_that_very_many_products_show_is_named(shop: App) -> None:
    add(shop, {f"SAME{n}": [77] for n in range(4)})
    finding = only_finding(shop, "pictures-shared", CheckOptions(shared=3))
    assert finding.severity == "info" and finding.count == 1
    assert finding.examples[0].endswith("of 4 products such as SAME0")


def test_a_product_without_a_picture_is_reported_as_information(shop: App) -> None:
    add(shop, {"BARE": []})
    finding = only_finding(shop, "products-without-picture")
    assert finding.examples == ("BARE",) and run_check(shop).healthy


def test_a_picture_that_no_product_shows_is_swept(shop: App, sql: psycopg.Connection) -> None:
    sql.execute("DELETE FROM product WHERE sku = 'P0001'")
    sql.execute("UPDATE picture SET created_at = now() - interval '2 hours'")
    finding = repaired(shop, "pictures-unshown")
    assert finding.count == 1 and finding.severity == "warning"
    row = sql.execute("SELECT (SELECT count(*) FROM picture), count(*) FROM embedding").fetchone()
    assert row == (5, 5)


def test_a_picture_that_was_just_written_is_not_swept(shop: App, sql: psycopg.Connection) -> None:
    """A manual load may insert its product in the next transaction."""
    sql.execute("DELETE FROM product WHERE sku = 'P0001'")
    assert run_check(shop, REPAIR).findings == ()
    assert sql.execute("SELECT count(*) FROM picture").fetchone() == (6,)


def test_a_picture_without_an_embedding_is_named(shop: App, sql: psycopg.Connection) -> None:
    gone = sql.execute("DELETE FROM embedding WHERE picture_id = 2 RETURNING 1").rowcount
    finding = only_finding(shop, "pictures-not-embedded", REPAIR)
    assert gone == finding.count == 1 and finding.examples == ("2",) and finding.wrong


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("product", "product_picture: product 2, picture 2"),
        ("picture", "product_picture: product 2, picture 2"),
        ("picture", "embedding: model 1, picture 2"),
    ],
)
def test_a_row_without_its_product_or_picture_is_named(
    shop: App, sql: psycopg.Connection, gone: str, named: str
) -> None:
    """As happens when triggers, and with them foreign keys, are disabled."""
    sql.execute("SET session_replication_role = replica")
    sql.execute(f"DELETE FROM {gone} WHERE id = 2")  # type: ignore[arg-type]
    findings = {each.kind: each for each in run_check(shop, REPAIR).findings}
    assert named in findings["rows-to-nowhere"].examples and findings["rows-to-nowhere"].wrong


def test_another_model_with_missing_embeddings_is_reported(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("SELECT register_model('other', '1', 49, 'abc')")
    assert only_finding(shop, "other-models-incomplete").examples == ("other",)


def test_a_catalogue_without_a_model_is_reported(app: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE model SET active = false")
    assert only_finding(app, "no-active-model").wrong


def test_a_vector_that_is_not_of_length_1_is_named_with_its_missing_check(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_unit_check")
    sql.execute("UPDATE embedding SET vec = (vec::vector * (%s)::vector)::halfvec"
                " WHERE picture_id = 3", [str([2.0] * 49)])  # fmt: skip
    kinds = {each.kind: each for each in run_check(shop, REPAIR).findings}
    assert kinds.keys() == {"checks-missing", "vectors-unfit"}
    assert kinds["vectors-unfit"].examples == ("3",) and kinds["vectors-unfit"].wrong
    assert kinds["checks-missing"].examples == ("embedding_m1_unit_check",)


def test_a_vector_of_another_dimension_is_named(shop: App, sql: psycopg.Connection) -> None:
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_dim_check")
    sql.execute("UPDATE embedding SET vec = '[1]' WHERE picture_id = 4")
    kinds = {each.kind: each.examples for each in run_check(shop).findings}
    assert kinds["vectors-unfit"] == ("4",)
    assert kinds["checks-missing"] == ("embedding_m1_dim_check",)


@pytest.mark.parametrize(
    "damage",
    [
        "ADD CONSTRAINT embedding_m1_unit_check CHECK (l2_norm(vec) < 1.01) NOT VALID",
        "ADD CONSTRAINT embedding_m1_unit_check CHECK (l2_norm(vec) < 1.01) NOT ENFORCED",
        "ADD CONSTRAINT embedding_m1_unit_check CHECK (model_id > 0)",
    ],
)
def test_a_check_constraint_that_does_not_check_is_named(
    shop: App, sql: psycopg.Connection, damage: str
) -> None:
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_unit_check")
    sql.execute(f"ALTER TABLE embedding_m1 {damage}")  # type: ignore[arg-type]
    assert only_finding(shop, "checks-missing").examples == ("embedding_m1_unit_check",)


def test_a_constraint_that_is_not_valid_is_named(shop: App, sql: psycopg.Connection) -> None:
    sql.execute("ALTER TABLE product ADD CONSTRAINT dear CHECK (price > 9) NOT VALID")
    assert only_finding(shop, "constraints-not-valid").examples == ("product.dear",)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("ALTER TABLE product DROP CONSTRAINT product_sku_key", "product_sku_key"),
        ("ALTER TABLE product_picture DROP CONSTRAINT product_picture_picture_id_fkey",
         "product_picture_picture_id_fkey"),
        ("ALTER TABLE product DROP CONSTRAINT product_price_check", "product_price_check"),
        ("DROP INDEX embedding_changed_in_idx", "embedding_changed_in_idx"),
    ],
)  # fmt: skip
def test_a_missing_constraint_or_index_is_named(
    shop: App, sql: psycopg.Connection, damage: str, named: str
) -> None:
    sql.execute(damage)  # type: ignore[call-overload]
    assert only_finding(shop, "rules-gone", REPAIR).examples == (named,)


def test_constraints_of_another_revision_are_not_reported_as_missing(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE alembic_version SET version_num = '9999'")
    sql.execute("DROP INDEX product_brand_idx")
    assert run_check(shop).findings == ()


def test_an_index_that_an_interrupted_command_left_is_named(
    shop: App, sql: psycopg.Connection
) -> None:
    add(shop, {"X": [8]}, brand="A")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("CREATE UNIQUE INDEX CONCURRENTLY half ON product (category)")
    sql.execute("UPDATE product SET category = NULL")
    finding = next(each for each in run_check(shop).findings if each.kind == "indexes-invalid")
    assert finding.examples == ("half",) and finding.wrong


def test_a_large_table_without_statistics_is_analysed(shop: App, sql: psycopg.Connection) -> None:
    sql.execute("ALTER TABLE ingest_reject SET (autovacuum_enabled = off)")
    sql.execute("INSERT INTO ingest_run (source, state) VALUES ('x', 'finished')")
    sql.execute("INSERT INTO ingest_reject (run_id, reason)"
                " SELECT 1, repeat('x', 900) FROM generate_series(1, 2000)")  # fmt: skip
    assert repaired(shop, "never-analysed").examples == ("ingest_reject",)


@pytest.mark.parametrize(("age", "count"), [("2 days", 1), ("2 hours", 0)])
def test_a_load_that_never_ended_is_recorded_as_failed(
    shop: App, sql: psycopg.Connection, age: str, count: int
) -> None:
    sql.execute("INSERT INTO ingest_run (source, started_at)"
                " VALUES ('x', now() - CAST(%s AS interval))", [age])  # fmt: skip
    assert len(run_check(shop, REPAIR).findings) == count
    state = sql.execute("SELECT state FROM ingest_run").fetchone()
    assert state == (("failed",) if count else ("running",)) and run_check(shop).findings == ()


def test_several_kinds_of_damage_are_repaired_at_once(
    indexed: App, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE product SET identity_key = 'x'")
    sql.execute("ALTER TABLE product DISABLE TRIGGER product_stamp")
    damage(file_of(indexed))
    report = run_check(indexed, REPAIR)
    assert len(report.findings) == 3 and report.healthy
    assert run_check(indexed).findings == ()


def test_a_restored_catalogue_has_no_finding(
    indexed: App, new_database: Callable[[str | None], str], tmp_path: Path
) -> None:
    backup(indexed.engine, tmp_path / "b")
    with App(Settings(home=tmp_path / "new", database_url=new_database(None))) as elsewhere:
        restore(elsewhere.engine, tmp_path / "b")
        assert run_check(elsewhere).findings == ()
        elsewhere.indexer.rebuild()
        assert run_check(elsewhere).findings == ()


def test_a_replica_is_checked_and_not_repaired(server_home: Path, shop: App) -> None:
    with servers.standby_of(server_home) as home:
        name = str(make_url(str(shop.settings.database_url)).database)
        url = embedded_server.url(home, name)
        with App(Settings(home=home, database_url=url)) as replica:
            servers.catch_up(server_home, home)
            report = run_check(replica)
            assert report.findings == () and "replica" in report.left_out[0]
            with pytest.raises(BadInput, match="repair the primary"):
                run_check(replica, REPAIR)
