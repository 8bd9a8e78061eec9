"""Versions of the embedded encoder: each loads its own model, and a photo may be upside down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.encoders import efficientnet_pair, embedded_versions
from app.encoders.base import EMBEDDED, Encoder
from app.encoders.efficientnet_pair import (
    PairNetwork,
    half_weights,
    load_projection,
    turned_upright,
)
from app.encoders.loading import choose_encoder, load_encoder
from app.encoders.probe_images import probe_images
from app.errors import ModelUnavailable
from app.types import Model

RECORDED_IN_VERSION_1 = "1-848d92bb4f69"


@pytest.fixture(scope="module")
def newest() -> Encoder:
    return load_encoder(EMBEDDED, compiled=False)


@pytest.fixture(scope="module")
def former() -> Encoder:
    return load_encoder(EMBEDDED, revision=RECORDED_IN_VERSION_1, compiled=False)


def model(encoder: Encoder) -> Model:
    return Model(1, encoder.name, encoder.revision, encoder.dim, encoder.fingerprint)


def test_a_recorded_revision_loads_the_version_that_it_names(
    newest: Encoder, former: Encoder
) -> None:
    assert former.revision == RECORDED_IN_VERSION_1
    assert newest.revision.startswith(f"{embedded_versions.NEWEST}-")
    assert former.name == newest.name == EMBEDDED
    assert former.fingerprint != newest.fingerprint


def test_the_former_version_gives_the_vectors_it_always_gave(former: Encoder) -> None:
    vector = former.encode_pictures([Image.linear_gradient("L").convert("RGB")])[0]
    expected = [0.19590, 0.16894, 0.01802, 0.22481, 0.19497, 0.01698]
    assert vector[[0, 1, 2, 256, 257, 258]] == pytest.approx(expected, abs=1e-4)


def test_the_commit_of_a_hub_model_selects_no_version(newest: Encoder) -> None:
    loaded = load_encoder(EMBEDDED, revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268")
    assert loaded.fingerprint == newest.fingerprint


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="no version '9'"):
        choose_encoder(EMBEDDED, revision="9-0123456789ab", compiled=False)


def test_only_a_former_version_is_outdated(newest: Encoder, former: Encoder) -> None:
    assert embedded_versions.outdated(model(former))
    assert not embedded_versions.outdated(model(newest))
    assert not embedded_versions.outdated(Model(1, "clip-ViT-B-32", "1-a", 512, "f"))


def test_a_photo_upside_down_resembles_the_upright_one_more_than_before(
    newest: Encoder, former: Encoder, test_data: Path
) -> None:
    files = sorted((test_data / "clothing" / "queries").iterdir())[:12]
    photos = [Image.open(file).convert("RGB") for file in files]
    turned = [photo.transpose(Image.Transpose.ROTATE_180) for photo in photos]
    found = {}
    for encoder in (newest, former):
        similarities = encoder.encode_pictures(turned) @ encoder.encode_pictures(photos).T
        found[encoder] = int((similarities.argmax(axis=1) == np.arange(len(photos))).sum())
    assert found[newest] > found[former], found


def test_a_mean_over_cells_weighs_the_middle_most_and_halves_alike() -> None:
    weights = half_weights(9, 5)
    assert weights.shape == (2, 9, 5)
    assert torch.allclose(weights.sum((1, 2)), torch.ones(2))
    assert torch.allclose(weights[0], weights[1].flip(0))
    assert weights[0, 4, 2] > weights[0, 3, 0] > 0 and weights[0, 5:].sum() == 0


def test_a_difference_that_clearly_points_down_is_turned_up() -> None:
    projection = load_projection(efficientnet_pair.PROJECTION)
    up, offset = projection.up, projection.offset
    lean = torch.tensor([0.2, -0.2])[:, None] * up
    upright = turned_upright(offset + lean, up, offset)
    assert torch.allclose(upright, 0.2 * up.expand(2, -1), atol=1e-3)
    unclear = turned_upright(offset[None] - 0.01 * up, up, offset)
    assert float(unclear[0] @ up) < 0, "photos are upright unless it is clear that they are not"


def test_the_maps_of_any_size_have_a_cell_for_32_pixels(newest: Encoder) -> None:
    networks: PairNetwork = efficientnet_pair.published_networks()
    with torch.inference_mode():
        features, classes = networks.maps(torch.from_numpy(probe_images(1, (96, 160))))
    assert features.shape == (1, 2560, 3, 5) and classes.shape == (1, 2000, 3, 5)
    assert torch.allclose(classes.sum(1), torch.full((1, 3, 5), 2.0), atol=1e-4)


def test_the_whole_map_pools_to_about_the_encoders_own_vector(newest: Encoder) -> None:
    """Not to the same: in a window all cells weigh the same."""
    picture = Image.fromarray(probe_images(1, (300, 300), first=3)[0])
    feature_map = newest.encode_map(picture)
    assert feature_map.shape == (12, 12, 4560) and feature_map.dtype == np.float32
    vectors = newest.pool_windows(feature_map, [(0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.3, 0.2)])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similarities = vectors @ newest.encode_pictures([picture])[0]
    assert similarities[0] > 0.7 and similarities[0] > similarities[1]
