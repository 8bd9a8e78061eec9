"""The pairs that similarity labels are fitted to, and the cut-offs that are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import psycopg
import pytest
from click.testing import CliRunner
from PIL import Image

from app.bootstrap import App
from app.catalog.batch_write import Batch
from app.catalog.entries import ProductEntry
from app.cli import cli
from app.db.queries import calibration
from app.errors import ModelMismatch, NoModel
from app.evaluation.calibration import MIN_PAIRS
from app.evaluation.calibration_run import calibrate
from app.images.decoding import decode
from app.images.thumbnails import thumbnail
from app.types import (
    Calibration,
    CutOff,
    PictureData,
    PictureRef,
    Product,
    Query,
    SearchResult,
    Vectors,
)
from support.colours import SIDE, ColourEncoder
from support.copies import copied_for
from support.shop import add, numbered


def look(category: str, product: int, n: int) -> bytes:
    """The n-th photo of a product: similar to its others, less to those of its category."""
    seed = [sum(category.encode()), product, n]
    blocks = [
        np.random.default_rng(seed[: depth + 1]).uniform(-1, 1, (SIDE, SIDE, 3)) * weight
        for depth, weight in ((0, 70), (1, 40), (2, 12))
    ]
    pixels = np.clip(128 + sum(blocks), 0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def put(app: App, category: str, products: Sequence[int], photos: int = 2) -> None:
    """Add products of a category with this many photos each."""
    for product in products:
        files = [look(category, product, n) for n in range(photos)]
        shas = [hashlib.sha256(file).digest() for file in files]
        pictures = [decode(file) for file in files]
        stored = {
            sha: PictureData(sha, *picture.size, thumbnail(picture))
            for sha, picture in zip(shas, pictures, strict=True)
        }
        shown = tuple(PictureRef(sha, f"{product}-{n}.png") for n, sha in enumerate(shas))
        entry = ProductEntry(Product(f"{category}{product:03}", category=category), shown)
        by_sha = dict(zip(shas, app.encoder().encode_pictures(pictures), strict=True))
        app.catalog.write(Batch([entry], stored, by_sha), app.catalog.model())


def fill(app: App) -> None:
    """Two categories of thirty products with two photos each, and one of three."""
    put(app, "Hat", range(30))
    put(app, "Shoe", range(30))
    put(app, "Belt", range(3))


database_url = copied_for("shop", fill)


@pytest.fixture
def shop(app: App) -> App:
    return app


def judge(sql: psycopg.Connection, a: str, b: str, same: bool) -> None:
    sql.execute(
        "INSERT INTO duplicate_verdict (sku_a, sku_b, same, decided_by) VALUES (%s, %s, %s, 'me')",
        [*sorted((a, b)), same],
    )


def asked(app: App, data: bytes, k: int = 100) -> SearchResult:
    return app.search.search(Query(picture=data, k=k))


def test_all_three_labels_are_fitted_and_shown(shop: App) -> None:
    whole = calibrate(shop.engine, shop.encoder)[0]
    found = [cut.distance for cut in (whole.same_photo, whole.same_product, whole.similar)]
    assert None not in found and found == sorted(found)
    assert (whole.same_photo.pairs, whole.same_product.pairs) == (126, 63)
    assert whole.same_product.others > MIN_PAIRS and whole.similar.others > 100

    small = BytesIO()
    Image.open(BytesIO(look("Hat", 1, 0))).resize((64, 64)).save(small, "JPEG", quality=90)
    first = asked(shop, small.getvalue()).matches[0]
    assert (first.product.sku, first.means) == ("Hat001", "same photo")
    another = asked(shop, look("Hat", 1, 7)).matches
    assert (another[0].product.sku, another[0].means) == ("Hat001", "same product")
    said = {match.means for match in another[1:] if match.product.category == "Hat"}
    assert "similar" in said
    said = {match.means for match in another if match.product.category == "Shoe"}
    assert said <= {None, "similar"} and None in said


def test_categories_with_enough_pairs_have_their_own_cut_offs(shop: App) -> None:
    rows = calibrate(shop.engine, shop.encoder)
    assert [found.category for found in rows] == [None, "Hat", "Shoe"]
    assert rows[1].same_product.pairs == 30 and rows[1].same_photo.pairs == 60


def test_the_fitted_cut_offs_are_stored_and_reproducible(
    shop: App, sql: psycopg.Connection
) -> None:
    rows = calibrate(shop.engine, shop.encoder)
    assert calibrate(shop.engine, shop.encoder) == rows
    with shop.engine.connect() as connection:
        stored = calibration.read(connection, 1)
    assert [found.category for found in stored] == [found.category for found in rows]
    for kept, fitted in zip(stored, rows, strict=True):
        assert kept.similar.pairs == fitted.similar.pairs
        assert kept.similar.distance == pytest.approx(fitted.similar.distance, abs=1e-6)
    sql.execute("DELETE FROM product WHERE category = 'Hat'")
    assert "Hat" not in [found.category for found in calibrate(shop.engine, shop.encoder)]


def test_an_empty_catalogue_gives_no_cut_offs(app: App) -> None:
    assert calibrate(app.engine, app.encoder) == (
        Calibration(None, CutOff(None, 0, 0), CutOff(None, 0, 0), CutOff(None, 0, 0)),
    )


def test_a_photo_shared_by_two_products_gives_no_pair(app: App) -> None:
    add(app, {"A": [1, 9], "B": [2, 9]})
    assert calibrate(app.engine, app.encoder)[0].same_product.pairs == 0


def test_a_damaged_thumbnail_is_skipped(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(30))
    sql.execute("UPDATE picture SET thumbnail = 'no' WHERE id <= 5")
    assert calibrate(app.engine, app.encoder)[0].same_photo.pairs == 25


def test_verdicts_give_positive_and_negative_pairs(app: App, sql: psycopg.Connection) -> None:
    """Products with one photo each, so that all pairs come from verdicts."""
    put(app, "Hat", range(25), photos=1)
    twins = [(f"Hat{n:03}", f"P{n:04}") for n in range(25)]
    for n, (_, twin) in enumerate(twins):
        data = look("Hat", n, 1)
        sha = hashlib.sha256(data).digest()
        stored = {sha: PictureData(sha, 32, 32, thumbnail(decode(data)))}
        [vector] = app.encoder().encode_pictures([decode(data)])
        entry = ProductEntry(Product(twin, category="Hat"), (PictureRef(sha, "b.png"),))
        app.catalog.write(Batch([entry], stored, {sha: vector}), app.catalog.model())
    assert calibrate(app.engine, app.encoder)[0].same_product.pairs == 0

    for a, b in twins:
        judge(sql, a, b, True)
    before = calibrate(app.engine, app.encoder)[0]
    assert before.same_product.pairs == 25 and before.same_product.distance is not None
    assert asked(app, look("Hat", 3, 8)).matches[0].means is not None

    judge(sql, "Hat000", "Hat001", False)
    after = calibrate(app.engine, app.encoder)[0]
    assert after.same_product.others == before.same_product.others + 1
    assert after.same_photo.others == before.same_photo.others + 1


def test_products_with_equal_identity_give_no_negative_pairs(
    app: App, sql: psycopg.Connection
) -> None:
    put(app, "Hat", range(25), photos=1)
    assert calibrate(app.engine, app.encoder)[0].same_product.others > 0
    sql.execute("UPDATE product SET identity_key = 'all one'")
    assert calibrate(app.engine, app.encoder)[0].same_product.others == 0
    judge(sql, "Hat000", "Hat001", False)  # a verdict overrides equal attributes
    assert calibrate(app.engine, app.encoder)[0].same_product.others > 0


# Models are not mixed


def test_another_model_is_not_read_written_or_used_for_labels(
    shop: App, sql: psycopg.Connection
) -> None:
    alone = calibrate(shop.engine, shop.encoder)
    sql.execute("SELECT register_model('other', '1', 49, 'other')")
    sql.execute("INSERT INTO embedding (model_id, picture_id, vec) SELECT 2, id, %s::halfvec"
                " FROM picture", ["[1" + ",0" * 48 + "]"])  # fmt: skip
    sql.execute("INSERT INTO calibration (model_id, same_photo_distance) VALUES (2, 2)")
    assert calibrate(shop.engine, shop.encoder) == alone
    kept = sql.execute("SELECT same_photo_distance FROM calibration WHERE model_id = 2").fetchall()
    assert kept == [(2.0,)]
    sql.execute("DELETE FROM calibration WHERE model_id = 1")
    assert {match.means for match in asked(shop, look("Hat", 1, 0)).matches} == {None}


def test_an_encoder_that_is_not_the_active_model_is_refused(app: App) -> None:
    with pytest.raises(ModelMismatch):
        calibrate(app.engine, lambda: ColourEncoder("other"))


def test_nothing_is_stored_if_the_active_model_changes_in_the_meantime(
    shop: App, sql: psycopg.Connection
) -> None:
    class Changing(ColourEncoder):
        def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
            sql.execute("UPDATE model SET active = false")
            return super().encode_pictures(pictures)

    with pytest.raises(ModelMismatch, match="nothing was calibrated"):
        calibrate(shop.engine, Changing)
    assert sql.execute("SELECT count(*) FROM calibration").fetchone() == (0,)
    with pytest.raises(NoModel):
        calibrate(shop.engine, shop.encoder)


@pytest.mark.usefixtures("ours")
def test_the_command_prints_cut_offs_and_what_could_not_be_fitted(app: App) -> None:
    put(app, "Hat", range(30), photos=1)
    ran = CliRunner().invoke(cli, ["calibrate"])
    assert ran.exit_code == 0, ran.output
    assert "(all)     same photo" in ran.stdout and "Hat       same photo" in ran.stdout
    assert 'no "same product" cut-off for the whole catalogue: 0 pairs for it' in ran.stderr
    [whole, hat] = json.loads(CliRunner().invoke(cli, ["calibrate", "--json"]).stdout)
    assert (whole["category"], hat["category"]) == (None, "Hat")
    assert whole["same_photo"]["pairs"] == 30 and whole["same_photo"]["reason"] is None
    assert whole["similar"]["distance"] is None and "needed" in whole["similar"]["reason"]
