"""Similarity labels: fitting cut-offs, the pairs they are fitted to, and where labels appear."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import event

from app.bootstrap import App
from app.catalog.batch_write import Batch
from app.catalog.entries import ProductEntry
from app.cli import cli
from app.config import Settings
from app.db.queries import calibration
from app.encoders.base import EncoderChoice
from app.errors import ModelMismatch, NoModel
from app.evaluation.calibration import (
    LIKELY_PRECISION,
    MIN_PAIRS,
    STRICT_PRECISION,
    LabelledPair,
    expected_agreement,
    fit_calibrations,
    fit_cut_off,
    fit_same_product,
    make_monotonic,
    missing_reason,
)
from app.evaluation.calibration_run import calibrate
from app.images.decoding import decode
from app.images.thumbnails import thumbnail
from app.search.similarity_labels import CalibrationCache, label
from app.types import (
    Calibration,
    CutOff,
    PictureData,
    PictureRef,
    Product,
    Query,
    SearchResult,
    Vectors,
    label_for,
)
from support.colours import SIDE, ColourEncoder, choose_colours, photo
from support.copies import copied_for
from support.shop import add, numbered, vectors

distances = st.lists(st.floats(0, 2, allow_subnormal=False), min_size=MIN_PAIRS, max_size=80)
cuts = st.one_of(st.none(), st.floats(0, 2))


def row(category: str | None, *cut_offs: float | None) -> Calibration:
    return Calibration(category, *(CutOff(cut, 20, 20) for cut in cut_offs))


# Fitting


@given(distances, distances, st.sampled_from([LIKELY_PRECISION, STRICT_PRECISION]))
def test_a_cut_off_has_the_required_precision_and_separates_the_kinds(
    pairs: list[float], others: list[float], precision: float
) -> None:
    cut = fit_cut_off(pairs, others, precision).distance
    if cut is not None:
        tpr, fpr = np.mean(np.array(pairs) <= cut), np.mean(np.array(others) <= cut)
        assert 0 <= cut <= 2 and tpr > fpr
        assert tpr / (tpr + fpr) >= precision - 1e-9


@given(distances, distances, st.randoms())
def test_the_order_of_the_pairs_does_not_matter(
    pairs: list[float], others: list[float], random: Any
) -> None:
    found = fit_cut_off(pairs, others)
    random.shuffle(pairs)
    random.shuffle(others)
    assert fit_cut_off(pairs, others) == found


@given(
    st.lists(st.floats(0, 0.5), min_size=MIN_PAIRS, max_size=60),
    st.lists(st.floats(0.6, 2), min_size=MIN_PAIRS, max_size=60),
    st.sampled_from([LIKELY_PRECISION, STRICT_PRECISION]),
)
def test_the_cut_off_of_separate_kinds_is_in_the_middle(
    pairs: list[float], others: list[float], precision: float
) -> None:
    found = fit_cut_off(pairs, others, precision)
    assert found.distance == pytest.approx((max(pairs) + min(others)) / 2)
    assert (found.pairs, found.others) == (len(pairs), len(others))


@pytest.mark.parametrize(("pairs", "others"), [(MIN_PAIRS - 1, 50), (50, MIN_PAIRS - 1), (0, 0)])
def test_too_few_pairs_give_no_cut_off_but_a_reason(pairs: int, others: int) -> None:
    found = fit_cut_off([0.1] * pairs, [1.0] * others)
    assert found == CutOff(None, pairs, others)
    assert f"at least {MIN_PAIRS} are needed" in str(missing_reason(found))


def test_equal_distributions_rarely_have_a_cut_off() -> None:
    random = np.random.default_rng(1)
    found = [fit_cut_off(random.random(50), random.random(300)) for _ in range(500)]
    assert sum(cut.distance is not None for cut in found) <= 10
    assert "no distance tells" in str(next(filter(None, map(missing_reason, found))))


def test_positive_pairs_that_are_farther_apart_give_no_cut_off() -> None:
    assert fit_cut_off([1.0] * 50, [0.1] * 50).distance is None


def test_a_higher_precision_gives_a_smaller_cut_off() -> None:
    pairs = np.concatenate([np.linspace(0, 0.2, 60), np.linspace(0.3, 0.5, 40)])
    others = np.concatenate([np.linspace(0.3, 0.5, 30), np.linspace(0.8, 1, 70)])
    assert fit_cut_off(pairs, others, STRICT_PRECISION).distance == pytest.approx(0.28, abs=0.07)
    assert fit_cut_off(pairs, others, LIKELY_PRECISION).distance == pytest.approx(0.55, abs=0.1)


def test_same_product_is_widened_to_where_nearly_all_pairs_are_expected_to_agree() -> None:
    quantiles = [NormalDist().inv_cdf((n + 0.5) / 40) for n in range(40)]
    pairs, others = np.exp(-3 + 0.5 * np.array(quantiles)), np.linspace(0.09, 0.6, 300)
    expected = expected_agreement(pairs)
    strict = fit_cut_off(pairs, others, STRICT_PRECISION).distance
    assert strict is not None and strict < expected
    assert fit_same_product(pairs, others).distance == pytest.approx(expected)
    near = np.concatenate([np.linspace(0.09, 0.15, 150), np.linspace(0.3, 0.6, 150)])
    cut = fit_same_product(pairs, near).distance
    assert cut is not None and cut < expected, "too many other products are within that"
    assert (pairs <= cut).mean() >= 4 * (near <= cut).mean()


def test_few_or_equal_pairs_are_expected_to_agree_within_the_farthest() -> None:
    assert expected_agreement([0.0, 0.0, 0.2]) == 0.2
    assert expected_agreement([0.1, 0.1, 0.1]) == pytest.approx(0.1)


@given(cuts, cuts, cuts, st.floats(0, 2))
def test_cut_offs_never_decrease_and_that_changes_no_label(
    photo: float | None, product: float | None, similar: float | None, distance: float
) -> None:
    before = row(None, photo, product, similar)
    after = make_monotonic(before)
    found = [cut.distance for cut in (after.same_photo, after.same_product, after.similar)]
    known = [cut for cut in found if cut is not None]
    assert all(a <= b for a, b in pairwise(known))
    assert label_for(distance, None, {None: before}) == label_for(distance, None, {None: after})


def test_the_label_is_the_strongest_that_holds_and_categories_have_their_own() -> None:
    rows = {None: row(None, 0.1, 0.2, 0.5), "Hat": row("Hat", None, 0.3, 0.4)}
    said = {d: label_for(d, "Shoe", rows) for d in (0.1, 0.15, 0.4, 0.6)}
    assert said == {0.1: "same photo", 0.15: "same product", 0.4: "similar", 0.6: None}
    said = {d: label_for(d, "Hat", rows) for d in (0.1, 0.25, 0.4, 0.45)}
    assert said == {0.1: "same photo", 0.25: "same product", 0.4: "similar", 0.45: None}
    assert label_for(0.0, "Hat", {}) is None


def test_only_categories_with_their_own_cut_off_have_a_row() -> None:
    pairs = [
        LabelledPair("same product", holds, category, 0.1 if holds else 1.0)
        for category, count in (("B", MIN_PAIRS), ("A", MIN_PAIRS), ("C", MIN_PAIRS - 1), (None, 3))
        for holds in (True, False)
        for _ in range(count)
    ]
    found = fit_calibrations(pairs)
    assert [found_row.category for found_row in found] == [None, "A", "B"]
    assert found[0].same_product == CutOff(pytest.approx(0.55), 62, 62)
    assert found[0].same_photo == CutOff(None, 0, 0)


# Pairs


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


# Where labels appear


def set_all(sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO calibration (model_id, same_photo_distance, same_product_distance,"
                " similar_distance) VALUES (1, 0.001, 0.002, 2)")  # fmt: skip


def test_both_search_paths_show_labels(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(50))
    set_all(sql)
    app.indexer.rebuild()
    for _ in range(2):  # the second search is a single statement
        said = [match.means for match in asked(app, photo(1), 3).matches]
        assert said == ["same photo", "similar", "similar"]


def test_cut_offs_are_read_once_a_minute(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(5))
    read: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM calibration" in statement:
            read.append(statement)

    event.listen(app.search_engine, "before_cursor_execute", note)
    assert asked(app, photo(1)).matches[0].means is None
    set_all(sql)
    assert asked(app, photo(1)).matches[0].means is None
    assert len(read) == 1
    monkeypatch.setattr("app.search.similarity_labels.FRESH_S", 0.0)
    assert asked(app, photo(1)).matches[0].means == "same photo"
    assert len(read) == 2


def test_a_search_succeeds_if_the_cut_offs_cannot_be_read(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    sql.execute("DROP TABLE calibration")
    assert [match.means for match in asked(app, photo(1)).matches] == [None] * 5


def test_other_searches_do_not_wait_while_one_reads_the_cut_offs(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    set_all(sql)
    cache = CalibrationCache(app.engine)
    matches = asked(app, photo(1)).matches
    with cache._lock:
        assert label(matches, cache.calibrations(1)) == matches
    assert label(matches, cache.calibrations(1))[0].means == "same photo"


def test_text_queries_have_no_labels(settings: Settings, app: App, sql: psycopg.Connection) -> None:
    class Reader(ColourEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.reads_words = True

        def encode_words(self, words: Sequence[str]) -> Vectors:
            return vectors(app, [1])

    add(app, numbered(5))
    set_all(sql)
    with App(settings, choose=lambda *_, **__: EncoderChoice(Reader(), "")) as reader:
        found = reader.search.search(Query(words="red", k=5)).matches
    assert found[0].similarity > 0.999 and {match.means for match in found} == {None}


@pytest.fixture
def ours(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run here use the small encoder and this test's database."""
    for module in ("cli.calibrate", "bootstrap"):
        monkeypatch.setattr(f"app.{module}.App", lambda *_: App(settings, choose=choose_colours))


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


@pytest.mark.usefixtures("ours")
def test_a_search_prints_the_label_next_to_the_similarity(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    set_all(sql)
    ran = CliRunner().invoke(cli, ["search", "--sku", "P0001", "--k", "2"])
    assert "similar  P000" in " ".join(ran.stdout.split("\n")).replace("similarity", "")
    found = json.loads(CliRunner().invoke(cli, ["search", "-", "--json"], input=photo(1)).stdout)
    assert found["matches"][0]["means"] == "same photo"
