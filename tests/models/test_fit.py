"""Fitting a model to a catalogue's own pairs: what is learnt from, what is kept, and its life."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from click.testing import CliRunner
from PIL import Image

from app.bootstrap import App
from app.cli import cli
from app.config import Settings
from app.db.queries import verdicts
from app.db.queries.search_events import LabelledRow
from app.duplicates.evidence import FoldCuts
from app.encoders.base import EncoderChoice
from app.encoders.projected_encoder import ProjectedEncoder
from app.errors import BadImage, BadInput, ModelMismatch, ModelUnavailable
from app.evaluation import fit_samples, model_fit
from app.evaluation.fit_samples import FitSamples, collect
from app.models.backfill import embed
from app.search.regions import ObjectLimits, limits_of
from app.types import Query
from app.vectors import unit_rows
from support.colours import ColourEncoder, choose_colours, photo
from support.sources import ingest, write_csv, write_photos, write_source

DIM = 24


def drawn(products: int, noise: float, disturbed: int) -> FitSamples:
    """Two photos of each product: its vector, disturbed in the first `disturbed` directions."""
    dice = np.random.default_rng(3)
    gallery = unit_rows(dice.normal(size=(products, DIM)).astype(np.float32))
    shown = np.repeat(np.arange(products), 2)
    error = dice.normal(size=(len(shown), DIM)).astype(np.float32) * noise
    error[:, disturbed:] = 0
    return FitSamples(gallery, unit_rows(gallery[shown] + error), shown)


def test_directions_that_only_disturb_are_turned_down_for_new_products_too() -> None:
    report = model_fit.fit(drawn(150, 0.8, disturbed=6))
    assert report.weights is not None
    assert report.known.low > 0 and report.new.after > report.new.before
    kept = np.linalg.norm(report.weights, axis=1)
    assert kept[:6].max() < kept[6:].min()
    figures = report.as_dict()
    assert figures["kept"] is True and "weights" not in figures


def test_nothing_is_kept_where_nothing_can_be_learnt() -> None:
    report = model_fit.fit(drawn(60, 0.5, disturbed=DIM))
    assert report.weights is None and report.as_dict()["kept"] is False
    assert report.known.low <= 0


def test_a_map_that_costs_new_products_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def better_for_known_only(samples: FitSamples, groups: Any, _: Any) -> Any:
        return np.full(len(samples.photos), groups is not samples.products)

    monkeypatch.setattr(model_fit, "_cross_fitted", better_for_known_only)
    report = model_fit.fit(drawn(150, 0.8, disturbed=6))
    assert report.known.low > 0 > report.new.high and report.penalty is not None
    assert report.weights is None


def test_a_map_that_is_not_invertible_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(samples: FitSamples, *_: Any) -> Any:
        return np.zeros((DIM, DIM), np.float32)

    samples = drawn(150, 0.8, disturbed=6)
    hits = np.ones(len(samples.photos), bool)
    monkeypatch.setattr(model_fit, "_cross_fitted", lambda *_: hits)
    monkeypatch.setattr(model_fit, "_choose_penalty", lambda *_: 1.0)
    monkeypatch.setattr(model_fit, "_fit", flat)
    report = model_fit.fit(samples)
    assert report.known.low > 0 and report.weights is None


def test_held_out_products_have_no_photo_in_the_fit() -> None:
    samples = drawn(30, 0.5, disturbed=DIM)
    seen: list[set[int]] = []

    def fit_map(gallery: Any, photos: Any, products: Any, penalty: float) -> Any:
        seen.append(set(products.tolist()))
        return np.eye(DIM, dtype=np.float32)

    model_fit._held_out(samples, samples.products, fit_map, 1.0)
    assert [len(each) for each in seen] == [20, 20, 20]
    assert set.intersection(*seen) == set()


def test_words_keep_their_likeness_to_pictures() -> None:
    class Reader(ColourEncoder):
        def encode_words(self, words: Any) -> Any:
            rows = np.random.default_rng(1).normal(size=(len(words), self.dim))
            return np.where([[word != "?"] for word in words], rows, 0).astype(np.float32)

    base = Reader()
    change = np.random.default_rng(2).normal(size=(base.dim, base.dim)) / 30
    weights = (np.eye(base.dim) + change).astype(np.float32)
    fitted = ProjectedEncoder("fitted", base, weights)
    pictures = base.encode_pictures([Image.open(BytesIO(photo(seed))) for seed in range(5)])
    lengths = np.linalg.norm(pictures @ weights, axis=1)
    words = base.encode_words(["red", "?"])
    mapped = fitted.encode_words(["red", "?"])
    before, after = pictures @ words[0], (fitted.project(pictures) @ mapped[0]) * lengths
    assert np.allclose(after / np.linalg.norm(after), before / np.linalg.norm(before), atol=1e-5)
    assert not mapped[1].any()


@pytest.mark.parametrize("weights", [np.zeros((49, 49)), np.eye(3), np.full((49, 49), np.nan)])
def test_a_map_that_loses_pictures_is_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match="matri"):
        ProjectedEncoder("fitted", ColourEncoder(), weights.astype(np.float32))


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Callable[..., App]]:
    """More services on the same database, like those of other processes."""
    apps: list[App] = []

    def open_(choose: Callable[..., EncoderChoice] = choose_colours, **changes: Any) -> App:
        apps.append(App(settings.model_copy(update=changes), choose=choose))
        return apps[-1]

    yield open_
    for each in apps:
        each.close()


@pytest.fixture(autouse=True)
def few_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_samples, "MIN_PHOTOS", 2)
    monkeypatch.setattr(fit_samples, "MIN_PRODUCTS", 2)


def samples(app: App, source: str) -> FitSamples:
    model = app.lifecycle.active()
    return collect(app.engine, model, source, lambda: app.encoders.for_model(model.id))


def shown(app: App, found: FitSamples) -> list[tuple[int, int]]:
    """The seeds of the gallery picture and of the photo of each sample."""
    vectors = ColourEncoder().encode_pictures(
        [Image.open(BytesIO(photo(seed, side=8))) for seed in range(12)]
    )
    seeds = [int(np.argmax(vectors @ row)) for row in (*found.gallery, *found.photos)]
    gallery, photos = seeds[: len(found.gallery)], seeds[len(found.gallery) :]
    return sorted((gallery[row], seed) for row, seed in zip(found.products, photos, strict=True))


def test_further_pictures_are_photos_of_their_product(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    write_photos(tmp_path, range(9))
    images = {"A": "0.png|1.png|2.png|7.png", "B": "3.png|4.png", "C": "5.png", "D": "6.png|7.png",
              "E": "8.png|7.png"}  # fmt: skip
    rows = [{"sku": sku, "title": sku, "images": each} for sku, each in images.items()]
    app = open_app()
    ingest(app, write_csv(tmp_path / "in.csv", rows))
    found = samples(app, "catalogue")
    assert len(found.gallery) == 5
    assert shown(app, found) == [(0, 1), (0, 2), (3, 4)]  # 7 is of three products


def test_verdicts_make_the_others_photos_of_the_first(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    app = open_app()
    ingest(app, write_source(tmp_path / "in", 8))
    for a, b, same in ((0, 1, True), (1, 2, True), (3, 4, True), (5, 6, False)):
        with app.engine.begin() as connection:
            verdicts.record(connection, f"P{a:04}", f"P{b:04}", same, "me")
    found = samples(app, "verdicts")
    assert len(found.gallery) == 5  # without the three that are another product again
    assert shown(app, found) == [(0, 1), (0, 2), (3, 4)]


def test_a_picture_of_several_of_the_same_product_is_one_photo_unless_others_show_it_too(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    write_photos(tmp_path, range(7))
    images = {"A": "0.png", "B": "1.png|2.png", "C": "2.png|3.png", "D": "4.png",
              "E": "5.png|4.png", "F": "3.png"}  # fmt: skip
    rows = [{"sku": sku, "title": sku, "images": each} for sku, each in images.items()]
    app = open_app()
    ingest(app, write_csv(tmp_path / "in.csv", rows))
    for a, b in (("A", "B"), ("B", "C"), ("D", "E")):
        with app.engine.begin() as connection:
            verdicts.record(connection, a, b, True, "me")
    # 3 is of F too, and 4 stands for D itself.
    assert shown(app, samples(app, "verdicts")) == [(0, 1), (0, 2), (4, 5)]


def test_a_photo_of_several_products_is_held_out_of_both(
    open_app: Callable[..., App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app()
    ingest(app, write_source(tmp_path / "in", 6))
    rows = [
        LabelledRow(None, None, id_, (), sku, photo(seed, side=64, kind="JPEG"))
        for id_, sku, seed in (("x", "P0001", 1), ("y", "P0001", 1), ("z", "P0002", 1),
                               ("u", "P0003", 3))
    ]  # fmt: skip
    monkeypatch.setattr(fit_samples.search_events, "labelled", lambda _: rows)
    found = samples(app, "events")
    assert shown(app, found) == [(1, 1), (2, 1), (3, 3)]
    assert model_fit._each_photo(found).tolist() == [0, 0, 1]


def test_clicked_photos_are_encoded_by_their_previews(
    open_app: Callable[..., App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clicked(sku: str, seed: int | None) -> LabelledRow:
        preview = None if seed is None else photo(seed, side=64, kind="JPEG")
        return LabelledRow(None, None, "x", (), sku, preview)

    rows = [clicked("P0001", 1), clicked("P0003", 4), clicked("P0002", None), clicked("gone", 1)]
    monkeypatch.setattr(fit_samples.search_events, "labelled", lambda _: rows)
    app = open_app()
    ingest(app, write_source(tmp_path / "in", 8))
    found = samples(app, "events")
    assert len(found.gallery) == 8
    assert shown(app, found) == [(1, 1), (3, 4)]


def test_too_few_photos_are_refused_with_what_to_do(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    app = open_app()
    ingest(app, write_source(tmp_path / "in", 3))
    for source, advice in (("catalogue", "second picture"), ("verdicts", "Review pairs"),
                           ("events", "--record queries")):  # fmt: skip
        with pytest.raises(BadInput, match=f"0 photos of 0 products.*{advice}"):
            samples(app, source)
    with pytest.raises(BadInput, match="is no source"):
        samples(app, "dreams")


def no_original(*_: Any) -> Image.Image:
    raise BadImage("The original is not needed.")


def weights(strength: float = 0.02) -> Any:
    dim = ColourEncoder().dim
    change = np.random.default_rng(5).normal(size=(dim, dim)) * strength
    return (np.eye(dim) + change).astype(np.float32)


def test_a_fitted_model_has_the_life_of_any_model(
    open_app: Callable[..., App], tmp_path: Path, sql: psycopg.Connection
) -> None:
    app, page = open_app(), open_app()
    ingest(app, write_source(tmp_path / "in", 20))
    app.indexer.rebuild()
    base = app.lifecycle.active()
    model = app.lifecycle.add_fitted("our-photos", base, weights(), {"source": "verdicts"})
    ingest(app, write_source(tmp_path / "in", 21))  # the new product has both embeddings
    counts = "SELECT model_id, count(*) FROM embedding GROUP BY 1 ORDER BY 1"
    assert sql.execute(counts).fetchall() == [(base.id, 21), (model.id, 1)]
    report = embed(app.engine, model, app.encoders.for_model(model.id), no_original)
    assert (report.embedded, report.failed, report.left) == (20, 0, 0)
    app.indexer.rebuild("our-photos")
    app.lifecycle.activate("our-photos")
    for seed in (7, 20):
        result = page.search.search(Query(picture=photo(seed), k=1))
        assert result.plan.model == "our-photos" and result.plan.path == "faiss"
        assert result.matches[0].product.sku == f"P{seed:04}"
        assert result.matches[0].similarity == pytest.approx(1, abs=1e-3)
    fitted = page.encoders.active()
    assert isinstance(fitted, ProjectedEncoder) and fitted.fingerprint == model.fingerprint
    app.indexer.rebuild("colours")
    app.lifecycle.rollback()
    assert page.search.search(Query(picture=photo(7), k=1)).plan.model == "colours"
    app.lifecycle.drop("our-photos")
    assert sql.execute("SELECT count(*) FROM model_projection").fetchone() == (0,)


def test_a_fitted_model_outlives_its_base(open_app: Callable[..., App], tmp_path: Path) -> None:
    app = open_app()
    ingest(app, write_source(tmp_path / "in", 6))
    base = app.lifecycle.active()
    model = app.lifecycle.add_fitted("our-photos", base, weights(), {})
    embed(app.engine, model, app.encoders.for_model(model.id), no_original)
    app.lifecycle.activate("our-photos", forced_reason="no index is needed here")
    app.lifecycle.drop("colours")
    other = open_app()
    match = other.search.search(Query(picture=photo(3), k=1)).matches[0]
    assert match.product.sku == "P0003"


def test_the_base_is_loaded_as_the_model_that_it_is(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    """From the folder of the settings, and once for both."""
    loaded: list[str] = []

    def from_folder(name: str, **_: Any) -> EncoderChoice:
        if name != "/models/colours":
            raise ModelUnavailable(f"There is no {name} here.")
        loaded.append(name)
        return EncoderChoice(ColourEncoder(), "")

    app = open_app()
    ingest(app, write_source(tmp_path / "in", 3))
    base = app.lifecycle.active()
    model = app.lifecycle.add_fitted("our-photos", base, weights(), {})
    other = open_app(from_folder, model="/models/colours")
    fitted = other.encoders.for_model(model.id)
    assert isinstance(fitted, ProjectedEncoder)
    assert other.encoders.for_model(base.id) is fitted.base and len(loaded) == 1
    embed(app.engine, model, fitted, no_original)
    app.lifecycle.activate("our-photos", forced_reason="no index is needed here")
    app.lifecycle.drop("colours")
    last = open_app(from_folder, model="/models/colours")
    assert last.search.search(Query(picture=photo(1), k=1)).matches[0].product.sku == "P0001"


def test_a_model_fitted_to_a_fitted_one_has_both_maps(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    app = open_app()
    ingest(app, write_source(tmp_path / "in", 6))
    base = app.lifecycle.active()
    first = app.lifecycle.add_fitted("first", base, weights(), {})
    embed(app.engine, first, app.encoders.for_model(first.id), no_original)
    second = app.lifecycle.add_fitted("second", first, weights(0.03), {})
    assert second.network == first.network == (base.name, base.revision)
    embed(app.engine, second, app.encoders.for_model(second.id), no_original)
    app.lifecycle.activate("second", forced_reason="no index is needed here")
    app.lifecycle.drop("first")
    fitted = open_app().encoders.active()
    assert isinstance(fitted, ProjectedEncoder) and fitted.base.name == "colours"
    pictures = [Image.open(BytesIO(photo(seed))) for seed in range(6)]
    by_both = ProjectedEncoder(
        "b", ProjectedEncoder("a", ColourEncoder(), weights()), weights(0.03)
    )
    assert np.allclose(
        fitted.encode_pictures(pictures), by_both.encode_pictures(pictures), atol=1e-5
    )
    assert open_app().search.search(Query(picture=photo(3), k=1)).matches[0].product.sku == "P0003"


def test_the_same_map_is_not_recorded_under_another_name(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    app = open_app()
    app.initialise()
    base = app.lifecycle.active()
    app.lifecycle.add_fitted("our-photos", base, weights(), {})
    with pytest.raises(BadInput, match="the map that the model our-photos has"):
        app.lifecycle.add_fitted("again", base, weights(), {})
    assert [each.model.name for each in app.lifecycle.models()] == ["colours", "our-photos"]


def test_a_fitted_model_has_the_limits_and_the_reading_of_words_of_its_base(
    open_app: Callable[..., App],
) -> None:
    class Embedded(ColourEncoder):
        def __init__(self) -> None:
            super().__init__("embedded")
            self.revision, self.reads_words = "2-x", True

        def encode_words(self, words: Any) -> Any:
            return np.ones((len(words), self.dim), np.float32)

    app = open_app(lambda *_, **__: EncoderChoice(Embedded(), ""))
    base = app.lifecycle.add("embedded")
    app.lifecycle.add_fitted("our-photos", base, weights(), {})
    app.lifecycle.activate("our-photos", forced_reason="no index is needed here")
    fitted = app.lifecycle.active()
    assert fitted.name == "our-photos" and limits_of(fitted) == limits_of(base)
    assert limits_of(base) != ObjectLimits()
    assert FoldCuts.of_model(fitted, ()) == FoldCuts.of_model(base, ()) != FoldCuts()
    with app.search.opened(Query(words="red")) as request:
        assert request.retrieval.model == fitted and request.catalogue_first


def test_another_base_than_it_was_fitted_to_is_refused(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    app = open_app()
    ingest(app, write_source(tmp_path / "in", 3))
    model = app.lifecycle.add_fitted("our-photos", app.lifecycle.active(), weights(), {})
    other = open_app(lambda name, **_: EncoderChoice(ColourEncoder("changed"), ""))
    with pytest.raises(ModelMismatch, match="Their vectors cannot be compared"):
        other.encoders.for_model(model.id)


@pytest.mark.parametrize("name", ["embedded", "auto", "clip", "Big", "x-int8", "", "a b", "-a"])
def test_a_name_that_may_be_taken_for_another_model_is_refused(
    open_app: Callable[..., App], tmp_path: Path, name: str
) -> None:
    app = open_app()
    app.initialise()
    with pytest.raises(BadInput, match="cannot be the name of a fitted model"):
        app.lifecycle.check_new_fit(name)
    with pytest.raises(BadInput, match="There is a model colours already"):
        app.lifecycle.check_new_fit("colours")


def test_the_command_keeps_what_helps_and_nothing_else(
    open_app: Callable[..., App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app()
    ingest(app, write_source(tmp_path / "in", 6, pictures=2))
    monkeypatch.setattr("app.cli.model.App", lambda: open_app())
    kept = model_fit.fit(drawn(150, 0.8, disturbed=6))
    result = CliRunner().invoke(cli, ["model", "fit", "our-photos", "--from", "catalogue"])
    assert result.exit_code == 1 and "Nothing was kept" in str(result.exception)
    assert [each.model.name for each in app.lifecycle.models()] == ["colours"]
    report = model_fit.FitReport(9, 5, 6, kept.known, kept.new, 1.0, weights())
    monkeypatch.setattr(model_fit, "fit", lambda *_: report)
    command = ["model", "fit", "our-photos", "--from", "catalogue", "--json"]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0 and '"kept": true' in result.output
    assert [each.model.name for each in app.lifecycle.models()] == ["colours", "our-photos"]
    assert app.lifecycle.models()[1].maintained
