"""Fitting from which similarity on a photo has a close match, and the photos it is fitted to."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.bootstrap import App
from app.cli import cli
from app.config import Settings
from app.db.engine import snapshot
from app.db.queries import calibration, models
from app.db.queries.calibration import SampledPicture
from app.evaluation.calibration_run import calibrate
from app.evaluation.close_match import (
    FALSE_ALARMS,
    MIN_ABSENT,
    MIN_PRESENT,
    AskedPhotos,
    fit_close_cut,
    fit_close_cuts,
    fit_probability,
    why_no_cut,
)
from app.evaluation.close_photos import MAX_SIDE, ask, simulated
from app.images.simulated_photos import KEPT, photograph_again
from app.images.thumbnails import thumbnail
from app.operations import health
from app.operations.health import HealthCheck, HealthStatus
from app.search import confidence
from app.search.confidence import NO_CLOSE_MATCH, Curve, Curves
from app.types import Product, Query, SearchResult, Vectors
from support.colours import choose_colours, photo
from support.copies import copied_for
from support.region_colours import choose_region_colours
from support.shop import add, add_products, numbered, vectors

GROUPS = np.arange(200) % 10


def asked(similarities: Sequence[float], category: str = "", matched: str = "") -> AskedPhotos:
    n = len(similarities)
    return AskedPhotos(
        np.array(similarities), np.full(n, matched), np.full(n, category), np.arange(n)
    )


# Fitting


def test_separate_kinds_have_a_cut_off_with_few_false_alarms() -> None:
    present, absent = np.linspace(0.8, 1, 200), np.linspace(0.2, 0.6, 200)
    cut = fit_close_cut(present, absent, GROUPS, GROUPS)
    assert cut.similarity is not None and 0.6 < cut.similarity < 0.82
    assert (cut.present, cut.absent, cut.detected) == (200, 200, 1.0)
    assert cut.false_alarms is not None and cut.false_alarms <= FALSE_ALARMS
    assert cut.midpoint == pytest.approx(0.7, abs=0.03) and cut.width is not None and cut.width > 0
    assert why_no_cut(cut) is None


@given(st.randoms(use_true_random=False), st.floats(0.1, 0.5))
def test_every_cut_off_keeps_to_the_share_of_false_alarms(random: object, gap: float) -> None:
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    present, absent = rng.normal(0.8, 0.08, 200), rng.normal(0.8 - gap, 0.08, 200)
    cut = fit_close_cut(present, absent, GROUPS, GROUPS)
    if cut.similarity is not None:
        assert cut.false_alarms is not None and cut.detected is not None
        assert cut.false_alarms <= FALSE_ALARMS
        assert cut.detected >= 9 * cut.false_alarms
        assert np.mean(present < cut.similarity) <= FALSE_ALARMS


def test_further_photos_of_present_products_are_below_the_cut_off_in_at_most_5_percent() -> None:
    """Of catalogues drawn at random: the cut-off of evenly distributed similarities is the share
    of further ones below it. Without a margin it would be too large in about half."""
    random = np.random.default_rng(2)
    groups = np.arange(400) % 40
    shares = [
        fit_close_cut(random.random(400), np.full(400, -0.1), groups, groups).similarity
        for _ in range(200)
    ]
    too_large = [share is not None and share > FALSE_ALARMS for share in shares]
    assert np.mean(too_large) <= 0.08
    assert np.mean([share or 0 for share in shares]) > 0.02


def test_the_shares_are_measured_on_groups_that_were_not_fitted_on() -> None:
    """Each group is lower than all others, so what fits the others fails on the lowest."""
    groups = np.repeat(np.arange(5), 40)
    present = np.repeat([0.5, 0.6, 0.7, 0.8, 0.9], 40)
    cut = fit_close_cut(present, np.full(200, 0.1), groups, groups)
    assert cut.similarity is None
    assert "at 5% false alarms" in str(why_no_cut(cut))


@pytest.mark.parametrize(
    ("present", "absent", "says"),
    [
        (MIN_PRESENT - 1, 100, f"39 photos of products could be asked, at least {MIN_PRESENT}"),
        (100, MIN_ABSENT - 1, f"19 photos could be asked without .* at least {MIN_ABSENT}"),
        (0, 0, "0 photos of products"),
    ],
)
def test_too_few_photos_give_no_cut_off_but_a_reason(present: int, absent: int, says: str) -> None:
    groups = np.arange(present), np.arange(absent)
    cut = fit_close_cut(np.full(present, 0.9), np.full(absent, 0.1), *groups)
    assert (cut.similarity, cut.present, cut.absent) == (None, present, absent)
    assert re.search(says, str(why_no_cut(cut)))


def test_equal_kinds_and_absent_products_that_are_more_similar_have_no_cut_off() -> None:
    random = np.random.default_rng(3)
    assert fit_close_cut(random.random(200), random.random(200), GROUPS, GROUPS).similarity is None
    low_and_high = np.repeat([0.1, 1.0], 100)
    cut = fit_close_cut(np.full(200, 0.3), low_and_high, GROUPS, GROUPS[np.argsort(GROUPS)])
    assert cut.similarity is None


def test_the_probability_crosses_one_half_between_the_kinds() -> None:
    random = np.random.default_rng(5)
    midpoint, width = fit_probability(random.normal(0.8, 0.1, 500), random.normal(0.4, 0.1, 500))
    assert midpoint == pytest.approx(0.6, abs=0.02)
    # Two normal distributions of one deviation d and a distance g of means: the width is d * d / g.
    assert width == pytest.approx(0.1 * 0.1 / 0.4, rel=0.3)


def test_a_category_has_its_own_cut_off_where_its_matches_suffice() -> None:
    hats, shoes = asked([0.9] * 60, "Hat", "Hat"), asked([0.7] * 60, "Shoe", "Shoe")
    absent = asked([0.8] * 60, "Shoe", "Hat"), asked([0.2] * 10, "Hat", "Shoe")
    cuts = fit_close_cuts(_joined(hats, shoes), _joined(*absent))
    assert set(cuts) == {None, "Hat"}
    assert cuts["Hat"].similarity == pytest.approx(0.9)
    assert (cuts["Hat"].present, cuts["Hat"].absent) == (60, 60)
    assert (cuts[None].present, cuts[None].absent) == (120, 70)


def test_a_category_that_the_cut_off_of_the_catalogue_serves_has_none_of_its_own() -> None:
    hats, shoes = asked([0.9] * 60, "Hat", "Hat"), asked([0.9] * 600, "Shoe", "Shoe")
    absent = asked([0.2] * 60, "Shoe", "Hat"), asked([0.2] * 600, "Hat", "Shoe")
    assert set(fit_close_cuts(_joined(hats, shoes), _joined(*absent))) == {None}
    low = asked([0.5] * 30 + [0.9] * 30, "Hat", "Hat")
    cuts = fit_close_cuts(_joined(low, *[shoes] * 2), _joined(*absent))
    assert cuts[None].similarity == pytest.approx(0.9)
    assert set(cuts) == {None, "Hat"} and cuts["Hat"].similarity == pytest.approx(0.5)


def _joined(*parts: AskedPhotos) -> AskedPhotos:
    return AskedPhotos(
        np.concatenate([part.similarities for part in parts]),
        np.concatenate([part.matched for part in parts]),
        np.concatenate([part.categories for part in parts]),
        np.concatenate([part.products for part in parts]),
    )


# Photos


def test_a_simulated_photo_is_another_and_always_the_same() -> None:
    picture = Image.effect_noise((60, 40), 50).convert("RGB")
    again = [photograph_again(picture, seed) for seed in (1, 1, 2)]
    assert again[0].tobytes() == again[1].tobytes() != again[2].tobytes()
    assert again[0].mode == "RGB" and again[0].width < 60 and again[0].height < 40
    assert np.asarray(again[0]).mean() < np.asarray(picture).mean()
    assert photograph_again(Image.new("RGB", (1, 1), "white"), 0).size == (1, 1)


class SizesEncoder:
    """Keeps the sizes of the pictures it is given."""

    def __init__(self) -> None:
        self.sides: list[int] = []

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        self.sides += [max(picture.size) for picture in pictures]
        return np.ones((len(pictures), 1), np.float32)


def test_a_simulated_photo_has_the_size_of_the_picture_and_not_of_its_thumbnail() -> None:
    """Up to MAX_SIDE; the crop keeps 82 to 96 % of a side."""
    encoder, sides = SizesEncoder(), (60, 100, MAX_SIDE, 5000)
    sample = [
        SampledPicture(number, (number,), None, np.ones(1, np.float32), side)
        for number, side in enumerate(sides)
    ]
    data = thumbnail(Image.new("RGB", (60, 40), "white"))
    photos = simulated(encoder, sample, dict.fromkeys(range(4), data))  # type: ignore[arg-type]
    assert [photo.picture.picture_id for photo in photos] == [0, 1, 2, 3]
    for side, got in zip((60, 100, MAX_SIDE, MAX_SIDE), encoder.sides, strict=True):
        assert KEPT[0] * side - 1 <= got <= KEPT[1] * side + 1


def fill(app: App) -> None:
    """Three categories of sixty products of one photo, and four products without a category."""
    kinds = {
        "Hat": range(60),
        "Shoe": range(100, 160),
        "Belt": range(200, 260),
        "": range(300, 304),
    }
    add_products(
        app,
        [
            (Product(f"{category or 'X'}{seed}", category=category), [seed])
            for category, seeds in kinds.items()
            for seed in seeds
        ],
    )


database_url = copied_for("shop", fill)


@pytest.fixture
def shop(app: App) -> App:
    return app


def test_the_answers_are_the_exact_best_with_and_without_the_category(shop: App) -> None:
    add(shop, {"Hat900": [900, 901]}, category="Hat")
    with snapshot(shop.engine) as connection:
        model = models.require_active(connection)
        sample = calibration.sample_pictures(connection, model, 2000)
    present, absent = ask(shop.engine, model, shop.encoder(), sample)
    assert len(present.similarities) == len(sample) + 2
    # The two pictures of one product are asked last, each against the rest.
    seeds = [*range(60), *range(100, 160), *range(200, 260), *range(300, 304), 900, 901]
    table = vectors(shop, seeds).astype(np.float16).astype(np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    categories = np.repeat(["Hat", "Shoe", "Belt", "", "Hat"], [60, 60, 60, 4, 2])
    for own, other in ((-1, -2), (-2, -1)):
        cosine = table @ table[own]
        cosine[own] = -1
        found = [np.isclose(best, cosine.max(), atol=1e-5) for best in present.similarities[-2:]]
        assert any(found)
        elsewhere = cosine[(categories != "Hat") & (categories != "")].max()
        assert any(np.isclose(best, elsewhere, atol=1e-5) for best in absent.similarities[-2:])
        assert cosine.max() >= cosine[other]
    assert len(absent.similarities) == len(present.similarities) - 4
    assert set(absent.matched.tolist()) == {"Hat", "Shoe", "Belt"}
    assert not (absent.matched == absent.categories).any()


def test_the_cut_offs_are_fitted_stored_and_reproducible(shop: App) -> None:
    rows = calibrate(shop.engine, shop.encoder)
    assert calibrate(shop.engine, shop.encoder) == rows
    whole = rows[0].close
    assert whole.similarity is not None and (whole.present, whole.absent) == (184, 180)
    assert whole.detected is not None and whole.detected > 0.45
    with shop.engine.connect() as connection:
        stored = calibration.read(connection, 1)
    assert [row.category for row in stored] == [row.category for row in rows]
    assert [row.close.present for row in stored] == [row.close.present for row in rows]
    assert stored[0].close.similarity == pytest.approx(whole.similarity, abs=1e-6)


def test_a_catalogue_of_one_category_has_none(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(60), category="Hat")
    [row] = [row.close for row in calibrate(app.engine, app.encoder) if row.category is None]
    assert (row.similarity, row.present, row.absent) == (None, 60, 0)
    assert "of two or more categories" in str(why_no_cut(row))


# Searches


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No curves are shipped."""
    monkeypatch.setattr(confidence, "SHIPPED", {})


def store(sql: psycopg.Connection, similarity: float, category: str = "", model: int = 1) -> None:
    sql.execute(
        "INSERT INTO calibration (model_id, category, close_similarity, close_midpoint,"
        " close_width, close_detected, close_false_alarms) VALUES (%s, %s, %s, %s, 0.05, 1, 0)",
        [model, category, similarity, similarity],
    )


def found(app: App, seed: int) -> SearchResult:
    return app.search.search(Query(picture=photo(seed), k=3))


@pytest.mark.usefixtures("quiet")
def test_after_calibration_a_search_says_what_is_close(shop: App) -> None:
    calibrate(shop.engine, shop.encoder)
    for seed in (7, 130, 250):
        result = found(shop, seed)
        assert result.close is True and (result.confidence or 0) > 0.5
    said = [found(shop, seed) for seed in range(5000, 5020)]
    assert sum(result.close is False for result in said) > 10
    assert all(result.confidence is not None for result in said)


@pytest.mark.usefixtures("quiet")
def test_the_category_of_the_best_match_comes_before_the_catalogue(
    shop: App, sql: psycopg.Connection
) -> None:
    store(sql, 0.5)
    store(sql, 1.0, "Shoe")
    sql.execute("INSERT INTO calibration (model_id, category) VALUES (1, 'Belt')")
    degraded = {seed: _degraded(seed) for seed in (7, 130, 250)}
    said = {seed: shop.search.search(Query(picture=data, k=3)) for seed, data in degraded.items()}
    best = {seed: result.matches[0].product.category for seed, result in said.items()}
    assert best == {7: "Hat", 130: "Shoe", 250: "Belt"}
    assert {seed: result.close for seed, result in said.items()} == {7: True, 130: False, 250: True}


def _degraded(seed: int) -> bytes:
    """A noisy copy of a product's photo."""
    pixels = np.asarray(Image.open(BytesIO(photo(seed))), np.int16)
    noise = np.random.default_rng(1).integers(-40, 40, pixels.shape)
    file = BytesIO()
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.usefixtures("quiet")
def test_the_cut_off_of_another_model_is_not_used(shop: App, sql: psycopg.Connection) -> None:
    sql.execute("SELECT register_model('other', '1', 49, 'other')")
    store(sql, 1.0, model=2)
    store(sql, 1.0, "Hat", model=2)
    result = found(shop, 7)
    assert (result.confidence, result.close) == (None, None)
    store(sql, -1.0)
    assert found(shop, 7).close is None  # cached for a minute
    shop.search._calibrations._read_at.clear()  # type: ignore[union-attr]
    assert found(shop, 7).close is True


def test_a_fitted_cut_off_comes_before_the_shipped_one_for_photos_that_a_product_fills(
    shop: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Curves(Curve(0.1, 0.05, 0.1), Curve(0.1, 0.05, 0.1), filled_from=0.9)
    monkeypatch.setattr(confidence, "SHIPPED", {shop.encoder().fingerprint: shipped})
    photos = {"filled": photo(7), "background": photo(5000)}

    def said() -> dict[str, bool | None]:
        shop.search._calibrations._read_at.clear()  # type: ignore[union-attr]
        return {
            name: shop.search.search(Query(picture=data, k=3)).close
            for name, data in photos.items()
        }

    assert said() == {"filled": True, "background": True}
    store(sql, 1.0)
    sql.execute("UPDATE calibration SET close_similarity = 1, close_midpoint = 1.2")
    photos["filled"] = _degraded(7)
    assert found(shop, 5000).matches[0].similarity < 0.9
    assert said() == {"filled": False, "background": True}


@pytest.mark.usefixtures("quiet")
def test_nothing_is_claimed_about_a_photo_whose_object_has_the_best_match(
    settings: Settings, sql: psycopg.Connection
) -> None:
    with App(settings, choose=choose_region_colours) as app:
        add(app, numbered(40))
        store(sql, 0.99)
        result = found(app, 5000)
        assert result.regions and (result.confidence, result.close) == (None, None)
        whole = app.search.search(Query(picture=photo(5000), k=3, objects=False))
        assert whole.close is False
        part = app.search.search(Query(picture=photo(7), region=(0, 0, 0.5, 0.5), k=3))
        assert part.close is None


def test_the_status_says_whether_close_matches_are_calibrated(
    shop: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> HealthCheck:
        [found] = [each for each in status(shop).checks if each.name == "close_match"]
        assert found.ok
        return found

    monkeypatch.setattr(confidence, "SHIPPED", {})
    assert "nothing is claimed" in check().value
    assert "lookalike calibrate" in str(check().advice)
    shipped = Curves(Curve(0.1, 0.05, 0.123), Curve(0.1, 0.05, 0.1), filled_from=0.9)
    monkeypatch.setitem(confidence.SHIPPED, shop.encoder().fingerprint, shipped)  # type: ignore[arg-type]
    assert "0.123" in check().value and "lookalike calibrate" in str(check().advice)
    sql.execute("INSERT INTO calibration (model_id, category) VALUES (1, '')")
    assert "not calibrated" in check().value  # labels only, by a version without this
    sql.execute("UPDATE calibration SET close_present = 39, close_absent = 50")
    assert "39 photos of present and 50 of absent products gave no cut-off" in check().value
    sql.execute("DELETE FROM calibration")
    store(sql, 0.741)
    assert "0.741" in check().value and check().advice is None


def status(app: App) -> HealthStatus:
    return health.status(app.engine, app.files, app.settings)


@pytest.fixture
def ours(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run here use the small encoder and this test's database."""
    for module in ("cli.calibrate", "bootstrap"):
        monkeypatch.setattr(f"app.{module}.App", lambda *_: App(settings, choose=choose_colours))


@pytest.mark.usefixtures("quiet", "ours")
def test_the_commands_print_the_cut_off_and_say_no_close_match(shop: App) -> None:
    del shop
    ran = CliRunner().invoke(cli, ["calibrate"])
    assert ran.exit_code == 0, ran.output
    assert "false alarms" in ran.stdout and "detected" in ran.stdout
    whole, *categories = json.loads(CliRunner().invoke(cli, ["calibrate", "--json"]).stdout)
    assert whole["close"]["present"] == 184 and whole["close"]["reason"] is None
    assert 0 < whole["close"]["similarity"] < 1
    for row in categories:
        own = row["close"]["similarity"] is not None
        assert own or "no cut-off of its own" in row["close"]["reason"]
    assert categories

    near = CliRunner().invoke(cli, ["search", "-", "--json"], input=photo(7))
    assert json.loads(near.stdout)["close"] is True
    far = json.loads(CliRunner().invoke(cli, ["search", "-", "--json"], input=photo(5007)).stdout)
    assert far["close"] is False and 0 <= far["confidence"] < 0.5
    ran = CliRunner().invoke(cli, ["search", "-"], input=photo(5007))
    assert NO_CLOSE_MATCH in ran.stderr


@pytest.mark.usefixtures("ours")
def test_the_command_says_why_there_is_no_cut_off(app: App) -> None:
    add(app, numbered(10))
    ran = CliRunner().invoke(cli, ["calibrate"])
    assert 'no "no close match" cut-off for the whole catalogue: 10 photos of' in ran.stderr
    [whole] = json.loads(CliRunner().invoke(cli, ["calibrate", "--json"]).stdout)
    assert whole["close"]["similarity"] is None and "at least 40" in whole["close"]["reason"]
