"""Our pixels equal those of the stock processor, which is used where we cannot reproduce it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from app.encoders.loading import load_encoder
from support.small_encoders import mixed, picture

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

pytestmark = pytest.mark.xdist_group("clip")

CLOSE = 1e-5

SETTINGS = {
    "as saved": {},
    "another size and crop": {
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
    },
    "other colours": {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.5]},
    "another filter": {"resample": 2},
    "another scale": {"rescale_factor": 1 / 127.5},
    "a square without a crop": {"size": {"height": 32, "width": 32}, "do_center_crop": False},
}
STRANGE = {
    "a crop that is wider than the picture": {"size": {"shortest_edge": 24}},
    "pixels that are not normalised": {"do_normalize": False},
    "pixels that are not scaled": {"do_rescale": False},
}


def resaved(folder: Path, copy: Path, changes: dict[str, object]) -> Path:
    """A copy of the model with changed settings of its picture processor."""
    shutil.copytree(folder, copy)
    settings = json.loads((copy / "processor_config.json").read_text())
    settings["image_processor"] |= changes
    (copy / "processor_config.json").write_text(json.dumps(settings))
    return copy


def by_the_model(folder: Path, pictures: list[Image.Image]) -> np.ndarray:
    return np.asarray(opened(folder).encode(pictures, normalize_embeddings=True))


def opened(folder: Path) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), local_files_only=True, device="cpu")


def levels(folder: Path, pictures: list[Image.Image]) -> np.ndarray:
    """The pixels of the model's own processor: (n, 3, 32, 32), 0 to 255."""
    processor = opened(folder).processor.image_processor
    values = np.stack([processor(one, return_tensors="np")["pixel_values"][0] for one in pictures])
    mean, std = (
        np.array(part)[:, None, None] for part in (processor.image_mean, processor.image_std)
    )
    return np.asarray((values * std + mean) / processor.rescale_factor)


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_our_pixels_equal_those_of_the_stock_processor(
    clip_folder: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = resaved(clip_folder, tmp_path / "model", changes)
    encoder = load_encoder(str(folder))
    photos = [picture(*size) for size in ((320, 320), (333, 97), (61, 259), (20, 31), (32, 32))]
    prepared = [encoder.prepare(photo) for photo in photos]
    assert {(one.shape, str(one.dtype)) for one in prepared} == {((32, 32, 3), "uint8")}
    assert all(one.flags.c_contiguous for one in prepared)
    off = np.abs(levels(folder, photos) - np.stack(prepared).transpose(0, 3, 1, 2))
    assert off.max() < 2.01
    assert off.mean() < 0.3
    assert np.abs(encoder.encode_prepared(prepared) - by_the_model(folder, photos)).max() < 5e-3


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_the_same_pixels_have_the_vectors_of_sentence_transformers(
    clip_folder: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = resaved(clip_folder, tmp_path / "model", changes)
    encoder = load_encoder(str(folder))
    small = [encoder.prepare(photo) for photo in mixed(5)]
    model = opened(folder)
    uncut = {"do_resize": False, "do_center_crop": False}
    model[0].processing_kwargs = {"image": uncut}
    theirs = model.encode([Image.fromarray(one) for one in small], normalize_embeddings=True)
    assert np.abs(encoder.encode_prepared(small) - theirs).max() < CLOSE


@pytest.mark.parametrize("changes", STRANGE.values(), ids=STRANGE)
def test_a_processor_that_we_cannot_reproduce_is_used(
    clip_folder: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = resaved(clip_folder, tmp_path / "model", changes)
    encoder = load_encoder(str(folder))
    photos = [picture(*size) for size in ((320, 320), (61, 259))]
    assert np.abs(encoder.encode_pictures(photos) - by_the_model(folder, photos)).max() < CLOSE


def test_settings_that_we_do_not_read_are_detected_on_pictures(clip_folder: Path) -> None:
    from transformers.image_utils import SizeDict

    from app.encoders.clip import own_preprocessor

    model = opened(clip_folder)
    assert own_preprocessor(model) is not None
    model.processor.image_processor.do_pad = True
    model.processor.image_processor.pad_size = SizeDict(height=40, width=40)
    assert own_preprocessor(model) is None


def test_using_the_stock_processor_changes_the_fingerprint(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a new version of a library resizes in another way, so that its processor is used."""
    before = load_encoder(str(clip_folder)).fingerprint
    monkeypatch.setattr("app.encoders.clip.own_preprocessor", lambda _: None)
    assert load_encoder(str(clip_folder)).fingerprint != before
