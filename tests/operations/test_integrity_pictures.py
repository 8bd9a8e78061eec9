"""`lookalike check`: thumbnails, original pictures, and the encoder."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.images.thumbnails import open_thumbnail
from app.operations.integrity import CheckOptions, encoder
from app.operations.integrity import pictures as picture_checks
from support.colours import photo
from support.integrity_checks import (
    REPAIR,
    only_finding,
    repaired,
    run_check,
    sources,
)


def uri_of(sql: psycopg.Connection, picture: int) -> str:
    """The file name of the original of a picture (id)."""
    row = sql.execute("SELECT uri FROM product_picture WHERE picture_id = %s", [picture]).fetchone()
    assert row is not None
    return str(row[0])


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
