"""Close matches: the photos that the cut-off is fitted to, and what searches and commands tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import psycopg
import pytest
from click.testing import CliRunner
from PIL import Image

from app.bootstrap import App
from app.cli import cli
from app.config import Settings
from app.db.engine import snapshot
from app.db.queries import calibration, models
from app.db.queries.calibration import SampledPicture
from app.evaluation.calibration_run import calibrate
from app.evaluation.close_match import why_no_cut
from app.evaluation.close_photos import MAX_SIDE, ask, simulated
from app.images.simulated_photos import KEPT, photograph_again
from app.images.thumbnails import thumbnail
from app.operations import health
from app.operations.health import HealthCheck, HealthStatus
from app.search import confidence
from app.search.confidence import NO_CLOSE_MATCH, Curve, Curves
from app.types import Product, Query, SearchResult, Vectors
from support.colours import photo
from support.copies import copied_for
from support.region_colours import choose_region_colours
from support.shop import add, add_products, numbered, vectors


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
