"""A fitted model: its life is that of any model, and its base stays what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from PIL import Image

from app.bootstrap import App
from app.config import Settings
from app.duplicates.evidence import FoldCuts
from app.encoders.base import EncoderChoice
from app.encoders.projected_encoder import ProjectedEncoder
from app.errors import BadImage, BadInput, ModelMismatch, ModelUnavailable
from app.models.backfill import embed
from app.search.regions import ObjectLimits, limits_of
from app.types import Query
from support.colours import ColourEncoder, choose_colours, photo
from support.open_apps import open_apps
from support.sources import ingest, write_source


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Callable[..., App]]:
    with open_apps(settings, choose_colours) as open_:
        yield open_


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
