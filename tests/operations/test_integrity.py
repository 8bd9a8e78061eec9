"""`lookalike check`: each kind of damage is caused, found, and repaired where it is safe."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.duplicates.verdicts import decide
from app.errors import BadInput, SchemaMismatch
from app.images.thumbnails import open_thumbnail
from app.index.builder import only_builder
from app.operations.backup import backup
from app.operations.integrity import CheckOptions, Finding, IntegrityReport, check, encoder
from app.operations.integrity import pictures as picture_checks
from app.operations.integrity.words import contradictions
from app.operations.restore import restore
from app.types import Query, Verdict
from ingest.local_files import LocalPictures
from support import servers
from support.colours import photo
from support.shop import add, numbered

FAKE_HASH = "00" * 32
CHECK_ONLY, REPAIR = CheckOptions(), CheckOptions(repair=True)


@pytest.fixture
def shop(app: App) -> App:
    """Six products with a photo each, with statistics and identity keys."""
    add(app, numbered(6), brand="Kestrel", category="lamp")
    return app


@pytest.fixture
def indexed(shop: App) -> App:
    """The same with an index."""
    shop.indexer.rebuild()
    return shop


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The folder of the six original photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(photo(seed))
    return folder


def run_check(app: App, options: CheckOptions = CHECK_ONLY) -> IntegrityReport:
    return check(app.engine, app.files, app.limits, options)


def only_finding(app: App, kind: str, options: CheckOptions = CHECK_ONLY) -> Finding:
    """The only finding, which must be of this kind."""
    report = run_check(app, options)
    assert [each.kind for each in report.findings] == [kind], report
    return report.findings[0]


def repaired(app: App, kind: str, options: CheckOptions = REPAIR) -> Finding:
    """The only finding, which is repaired and does not appear again."""
    finding = only_finding(app, kind, options)
    assert finding.repaired and not finding.wrong
    assert run_check(app).findings == ()
    return finding


def uri_of(sql: psycopg.Connection, picture: int) -> str:
    """The file name of the original of a picture (id)."""
    row = sql.execute("SELECT uri FROM product_picture WHERE picture_id = %s", [picture]).fetchone()
    assert row is not None
    return str(row[0])


def sources(*folders: Path, app: App) -> list[LocalPictures]:
    return [LocalPictures(folder, max_bytes=app.limits.max_bytes) for folder in folders]


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


# Stamps


@pytest.mark.parametrize("table", ["embedding", "product", "product_picture"])
@pytest.mark.parametrize("damage", ["DISABLE", "ENABLE", "ENABLE REPLICA"])
def test_a_stamp_trigger_that_is_not_always_on_is_enabled(
    shop: App, sql: psycopg.Connection, table: str, damage: str
) -> None:
    sql.execute(f"ALTER TABLE {table} {damage} TRIGGER {table}_stamp")  # type: ignore[arg-type]
    assert table in repaired(shop, "stamp-off").examples


def test_a_stamp_trigger_disabled_on_one_partition_is_enabled(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("ALTER TABLE embedding_m1 DISABLE TRIGGER embedding_stamp")
    assert repaired(shop, "stamp-off").examples == ("embedding_m1",)


@pytest.mark.parametrize("table", ["embedding", "product"])
def test_a_missing_stamp_trigger_is_created(shop: App, sql: psycopg.Connection, table: str) -> None:
    sql.execute(f"DROP TRIGGER {table}_stamp ON {table}")  # type: ignore[arg-type]
    repaired(shop, "stamp-off")


def test_a_stamp_trigger_with_a_condition_is_replaced(shop: App, sql: psycopg.Connection) -> None:
    sql.execute("CREATE OR REPLACE TRIGGER product_stamp BEFORE INSERT OR UPDATE ON product"
                " FOR EACH ROW WHEN (NEW.sku > 'P') EXECUTE FUNCTION stamp_row()")  # fmt: skip
    sql.execute("ALTER TABLE product ENABLE ALWAYS TRIGGER product_stamp")
    repaired(shop, "stamp-off")


def test_a_stamp_trigger_overridden_by_another_cannot_be_repaired(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TRIGGER zz BEFORE UPDATE ON product FOR EACH ROW"
                " EXECUTE FUNCTION suppress_redundant_updates_trigger()")  # fmt: skip
    finding = only_finding(shop, "stamp-off", REPAIR)
    assert finding.wrong and finding.repaired is None


def test_no_build_that_missed_a_change_is_used_after_a_stamp_trigger_was_off(
    indexed: App, sql: psycopg.Connection
) -> None:
    sql.execute("ALTER TABLE embedding DISABLE TRIGGER embedding_stamp")
    sql.execute("UPDATE embedding AS e SET vec = o.vec FROM embedding AS o"
                " WHERE e.picture_id = 1 AND o.picture_id = 2")  # fmt: skip
    assert run_check(indexed, REPAIR).healthy
    plan = indexed.search.search(Query(picture=photo(1), k=3)).plan
    assert plan.build is None and plan.path != "faiss"


@pytest.mark.parametrize(
    ("table", "column"), [("embedding", "vec"), ("product", "sku"), ("product_picture", "uri")]
)
def test_a_row_stamped_in_the_future_is_restamped(
    shop: App, sql: psycopg.Connection, table: str, column: str
) -> None:
    stamp, off = f"{table}_stamp", f"ALTER TABLE {table} DISABLE TRIGGER"
    sql.execute(f"{off} {stamp}")  # type: ignore[arg-type]
    sql.execute(f"UPDATE {table} SET changed_in = '99999999'")  # type: ignore[arg-type]
    sql.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {stamp}")  # type: ignore[arg-type]
    finding = repaired(shop, "rows-from-the-future")
    assert finding.count == 6 and len(finding.examples) == 5


# Identity keys and verdicts


def test_an_identity_key_of_another_normaliser_is_renewed(
    shop: App, sql: psycopg.Connection
) -> None:
    old = sql.execute("SELECT identity_key FROM product WHERE sku = 'P0002'").fetchone()
    sql.execute("UPDATE product SET identity_key = '0|other' WHERE sku = 'P0002'")
    assert repaired(shop, "identity-keys").examples == ("P0002",)
    assert sql.execute("SELECT identity_key FROM product WHERE sku = 'P0002'").fetchone() == old


def test_an_identity_key_outdated_by_an_sql_update_is_renewed(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE product SET title = 'Green chair' WHERE sku = 'P0002'")
    repaired(shop, "identity-keys")


def test_contradicting_verdicts_are_named_and_not_repaired(
    shop: App, sql: psycopg.Connection
) -> None:
    decide(shop.engine, "P0000", "P0001", True, "Ada")
    decide(shop.engine, "P0001", "P0002", True, "Ada")
    sql.execute("INSERT INTO duplicate_verdict VALUES ('P0000', 'P0002', false, 'by hand')")
    finding = only_finding(shop, "verdicts-contradict", REPAIR)
    assert finding.examples == ("P0000 differs from P0002",) and finding.wrong


def test_verdicts_that_agree_do_not_contradict() -> None:
    same = [Verdict("A", "B", True), Verdict("B", "C", True)]
    assert list(contradictions([*same, Verdict("C", "D", False)])) == []
    assert len(list(contradictions([Verdict("A", "C", False), *same]))) == 1


def test_a_verdict_on_deleted_products_is_reported_and_kept(
    shop: App, sql: psycopg.Connection
) -> None:
    decide(shop.engine, "P0000", "P0001", False, "Ada")
    shop.catalog.delete(["P0001"])
    assert only_finding(shop, "verdicts-on-nothing", REPAIR).examples == ("P0001",)
    assert run_check(shop).healthy
    assert sql.execute("SELECT count(*) FROM duplicate_verdict").fetchone() == (1,)


# Thumbnails and originals


@pytest.mark.parametrize("data", [b"", b"no picture", b"cut"])
def test_a_thumbnail_that_cannot_be_shown_is_named(
    shop: App, sql: psycopg.Connection, data: bytes
) -> None:
    if data == b"cut":
        sql.execute("UPDATE picture SET thumbnail = substr(thumbnail, 1, 200) WHERE id = 3")
    else:
        sql.execute("UPDATE picture SET thumbnail = %s WHERE id = 3", [data])
    finding = only_finding(shop, "thumbnails-damaged", REPAIR)
    assert finding.examples == ("3",) and finding.wrong


def test_a_thumbnail_above_the_limit_is_named(shop: App, sql: psycopg.Connection) -> None:
    sql.execute("ALTER TABLE picture DROP CONSTRAINT picture_thumbnail_check")
    sql.execute("UPDATE picture SET thumbnail = thumbnail || convert_to(repeat('x', 20480), 'UTF8')"
                " WHERE id = 3")  # fmt: skip
    kinds = {each.kind: each.examples for each in run_check(shop).findings}
    assert kinds == {
        "thumbnails-damaged": ("3",), "rules-gone": ("picture_thumbnail_check",),
    }  # fmt: skip


def test_a_damaged_thumbnail_is_recreated_from_its_original(
    shop: App, sql: psycopg.Connection, photos: Path
) -> None:
    before = sql.execute("SELECT thumbnail FROM picture WHERE id = 3").fetchone()
    sql.execute("UPDATE picture SET thumbnail = 'x' WHERE id IN (3, 5)")
    repaired(shop, "thumbnails-damaged", CheckOptions(sources(photos, app=shop), repair=True))
    after = sql.execute("SELECT thumbnail FROM picture WHERE id = 3").fetchone()
    assert after == before and after and open_thumbnail(after[0]).size == (32, 32)


def test_a_thumbnail_without_its_original_stays_a_finding(
    shop: App, sql: psycopg.Connection, photos: Path
) -> None:
    (photos / uri_of(sql, 3)).unlink()
    sql.execute("UPDATE picture SET thumbnail = 'x' WHERE id IN (3, 5)")
    report = run_check(shop, CheckOptions(sources(photos, app=shop), repair=True))
    kinds = {each.kind: each for each in report.findings}
    assert kinds["thumbnails-damaged"].examples == ("3",) and kinds["thumbnails-damaged"].wrong
    assert kinds.keys() == {"thumbnails-damaged", "originals-missing"}


def test_thumbnails_and_originals_are_read_in_batches(
    shop: App, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.queries.pictures.BATCH_ROWS", 4)
    progress: list[str] = []
    where = picture_checks.Originals(sources(photos, app=shop))
    assert (
        list(
            picture_checks.find_thumbnails(shop.engine, where, shop.limits, False, progress.append)
        )
        == []
    )
    assert list(picture_checks.find_originals(shop.engine, where, progress.append)) == []
    assert progress == ["4 thumbnails", "6 thumbnails", "4 originals", "6 originals"]


def test_an_original_that_is_missing_is_named(shop: App, photos: Path) -> None:
    (photos / "4.png").unlink()
    finding = only_finding(shop, "originals-missing", CheckOptions(sources(photos, app=shop)))
    assert finding.count == 1 and "'4.png'" in finding.examples[0] and finding.wrong


def test_an_original_that_is_another_picture_now_is_named(shop: App, photos: Path) -> None:
    (photos / "4.png").write_bytes(photo(40))
    finding = only_finding(shop, "originals-changed", CheckOptions(sources(photos, app=shop)))
    assert finding.examples == ("'4.png' is another picture now",)


def test_an_original_in_a_second_folder_is_found(shop: App, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (photos / "4.png").rename(tmp_path / "more" / "4.png")
    (photos / "4.png").write_bytes(photo(40))
    assert (
        run_check(shop, CheckOptions(sources(photos, tmp_path / "more", app=shop))).findings == ()
    )


def test_an_original_outside_the_folder_is_not_read(
    shop: App, photos: Path, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE product_picture SET uri = '../photos/' || uri WHERE picture_id = 5")
    (photos / "inner").mkdir()
    assert run_check(shop, CheckOptions(sources(photos.parent / "photos", app=shop))).findings == ()
    for file in photos.glob("*.png"):
        file.rename(photos / "inner" / file.name)
    (photos / uri_of(sql, 5).removeprefix("../photos/")).write_bytes(b"")
    finding = only_finding(
        shop, "originals-missing", CheckOptions(sources(photos / "inner", app=shop))
    )
    assert finding.count == 1 and "lies outside" in finding.examples[0]


# The encoder


def test_an_encoder_with_another_fingerprint_is_reported(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE model SET fingerprint = 'other'")
    shop.__dict__.pop("encoders")
    finding = only_finding(shop, "encoder-other", CheckOptions(load=shop.encoder))
    assert finding.wrong and "other" in finding.examples[0]


def test_an_encoder_is_loaded_only_when_asked_for(app: App) -> None:
    app.__dict__.pop("encoders", None)
    run_check(app)
    assert "encoders" not in app.__dict__
    run_check(app, CheckOptions(load=app.encoder))
    assert "encoders" in app.__dict__


def test_a_vector_that_differs_from_the_encoders_is_reported(
    shop: App, sql: psycopg.Connection, photos: Path
) -> None:
    sql.execute("UPDATE embedding AS e SET vec = o.vec FROM embedding AS o"
                " WHERE e.picture_id = 1 AND o.picture_id = 2")  # fmt: skip
    options = CheckOptions(sources(photos, app=shop), load=shop.encoder)
    assert only_finding(shop, "vectors-other", options).examples == (uri_of(sql, 1),)


def test_no_more_pictures_are_encoded_again_than_a_sample(
    shop: App, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "SAMPLE", 2)
    seen: list[int] = []

    class Counting:
        input_side = None

        def encode_pictures(self, pictures: list[object]) -> object:
            seen.append(len(pictures))
            return shop.encoder().encode_pictures(pictures)  # type: ignore[arg-type]

    where = picture_checks.Originals(sources(photos, app=shop))
    assert list(encoder.find(shop.engine, Counting, where, shop.limits)) == []  # type: ignore[arg-type]
    assert seen == [1, 1]


# The index


def file_of(app: App) -> Path:
    return next(app.files.folder.glob("*.faiss"))


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_missing_index_file_is_reported_and_fetched(indexed: App) -> None:
    whole = file_of(indexed).read_bytes()
    file_of(indexed).unlink()
    assert run_check(indexed).healthy
    repaired(indexed, "index-files-missing")
    assert file_of(indexed).read_bytes() == whole


def test_a_damaged_index_file_is_fetched(indexed: App) -> None:
    whole = file_of(indexed).read_bytes()
    damage(file_of(indexed))
    assert not run_check(indexed).healthy
    repaired(indexed, "index-files-damaged")
    assert file_of(indexed).read_bytes() == whole


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_build_whose_file_is_lost_is_retired(
    indexed: App, sql: psycopg.Connection, how: str
) -> None:
    sql.execute("DELETE FROM index_chunk")
    if how == "missing":
        file_of(indexed).unlink()
    else:
        damage(file_of(indexed))
    report = run_check(indexed, REPAIR)
    assert "builds-lost" in {each.kind for each in report.findings} and report.healthy
    assert run_check(indexed).findings == () and list(indexed.files.folder.iterdir()) == []
    row = sql.execute("SELECT state, reason FROM index_build").fetchone()
    assert row == ("retired", "its file was lost")


@pytest.mark.parametrize(
    "how",
    [
        "UPDATE index_chunk SET data = set_byte(data, 60, get_byte(data, 60) # 1)",
        "INSERT INTO index_chunk SELECT build_id, 1, data FROM index_chunk",
    ],
)
def test_a_damaged_copy_in_the_database_is_stored_again(
    indexed: App, sql: psycopg.Connection, how: str
) -> None:
    sql.execute(how)  # type: ignore[arg-type]
    repaired(indexed, "index-chunks-damaged")
    file_of(indexed).unlink()
    repaired(indexed, "index-files-missing")


def test_a_build_without_a_copy_in_the_database_is_fine(
    indexed: App, sql: psycopg.Connection
) -> None:
    """As with LOOKALIKE_INDEX_IN_DATABASE=0."""
    sql.execute("DELETE FROM index_chunk")
    assert run_check(indexed).findings == ()


def test_files_that_no_build_needs_are_removed(indexed: App) -> None:
    folder, needed = indexed.files.folder, file_of(indexed)
    for name in (f"{FAKE_HASH}.faiss", "a.tmp", "old.part", "new.part", "notes.txt"):
        (folder / name).write_bytes(b"x")
    os.utime(folder / "old.part", (0, time.time() - 7200))
    finding = repaired(indexed, "files-left")
    assert finding.examples == (f"{FAKE_HASH}.faiss", "a.tmp", "old.part")
    assert {file.name for file in folder.iterdir()} == {needed.name, "new.part", "notes.txt"}


def test_chunks_of_retired_builds_are_removed(indexed: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE index_build SET state = 'retired'")
    report = run_check(indexed, REPAIR)
    assert {each.kind for each in report.findings} == {"chunks-retired", "files-left"}
    assert report.healthy and sql.execute("SELECT count(*) FROM index_chunk").fetchone() == (0,)


def test_builds_of_another_database_are_retired(indexed: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE index_build SET cluster = '1/2'")
    kinds = [each.kind for each in run_check(indexed, REPAIR).findings]
    assert kinds == ["builds-foreign", "chunks-retired", "files-left"]
    assert run_check(indexed).findings == ()


def test_a_build_whose_builder_disappeared_is_rejected(
    indexed: App, sql: psycopg.Connection
) -> None:
    sql.execute(
        "INSERT INTO index_build (model_id, cluster) SELECT model_id, cluster FROM index_build"
    )
    repaired(indexed, "builds-abandoned")
    states = sql.execute("SELECT state FROM index_build ORDER BY id").fetchall()
    assert states == [("published",), ("rejected",)]


def test_the_index_is_neither_checked_nor_repaired_during_a_build(
    indexed: App, sql: psycopg.Connection
) -> None:
    draft = indexed.files.folder / "a.tmp"
    draft.write_bytes(b"x")
    with only_builder(indexed.engine):
        report = run_check(indexed, REPAIR)
    assert report.findings == () and draft.exists()
    assert any("being built" in each for each in report.left_out)


def test_a_folder_that_cannot_be_written_leaves_the_finding_with_the_reason(
    indexed: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is in the place of the folder, because root may write everywhere else."""
    folder = indexed.files.folder
    folder.rename(folder.with_name("away"))
    folder.write_text("")
    finding = only_finding(indexed, "index-files-missing", REPAIR)
    assert finding.repaired is None and "could not be repaired" in finding.advice


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
