"""Fitting a model to a catalogue's own pairs: what is learnt, and what of it is kept."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from app.cli import cli
from app.config import Settings
from app.encoders.projected_encoder import ProjectedEncoder
from app.evaluation import fit_samples, model_fit
from app.evaluation.fit_samples import FitSamples
from app.vectors import unit_rows
from support.colours import ColourEncoder, choose_colours, photo
from support.open_apps import open_apps
from support.sources import ingest, write_source

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


def test_the_command_keeps_what_helps_and_nothing_else(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_samples, "MIN_PHOTOS", 2)
    monkeypatch.setattr(fit_samples, "MIN_PRODUCTS", 2)
    with open_apps(settings, choose_colours) as open_app:
        app = open_app()
        ingest(app, write_source(tmp_path / "in", 6, pictures=2))
        monkeypatch.setattr("app.cli.model.App", lambda: open_app())
        kept = model_fit.fit(drawn(150, 0.8, disturbed=6))
        result = CliRunner().invoke(cli, ["model", "fit", "our-photos", "--from", "catalogue"])
        assert result.exit_code == 1 and "Nothing was kept" in str(result.exception)
        assert [each.model.name for each in app.lifecycle.models()] == ["colours"]
        halved = np.eye(ColourEncoder().dim, dtype=np.float32) / 2
        report = model_fit.FitReport(9, 5, 6, kept.known, kept.new, 1.0, halved)
        monkeypatch.setattr(model_fit, "fit", lambda *_: report)
        command = ["model", "fit", "our-photos", "--from", "catalogue", "--json"]
        result = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert result.exit_code == 0 and '"kept": true' in result.output
        assert [each.model.name for each in app.lifecycle.models()] == ["colours", "our-photos"]
        assert app.lifecycle.models()[1].maintained
