"""The photos that a model is fitted to: from the catalogue, from verdicts and from clicks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.bootstrap import App
from app.config import Settings
from app.db.queries import verdicts
from app.db.queries.search_events import LabelledRow
from app.errors import BadInput
from app.evaluation import fit_samples, model_fit
from app.evaluation.fit_samples import FitSamples, collect
from support.colours import ColourEncoder, choose_colours, photo
from support.open_apps import open_apps
from support.sources import ingest, write_csv, write_photos, write_source


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Callable[..., App]]:
    with open_apps(settings, choose_colours) as open_:
        yield open_


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
