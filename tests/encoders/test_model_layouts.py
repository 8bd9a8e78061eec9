"""Models by their file layout: equal to the library that wrote them, or refused by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.encoders.base import Encoder
from app.encoders.loading import load_encoder
from app.encoders.presets import PRESETS, Preset, full_name
from app.errors import ModelUnavailable
from support.small_clip import save_published_clip, without_messages
from support.small_dual_encoders import (
    LENGTH,
    save_bare_clip,
    save_naflex,
    save_picture_half,
    save_siglip,
    save_siglip2,
)
from support.small_open_clip import (
    CLIP,
    SIGLIP,
    SIZES,
    TEXTS,
    add_own_code,
    photo,
    save_small_open_clip,
)

pytestmark = pytest.mark.xdist_group("clip")

CLOSE = 1e-5
REFERENCE = Path(__file__).with_name("open_clip_reference.json")
BARE = [save_bare_clip, save_siglip, save_siglip2, save_naflex]
PADDED = {"padding": "max_length", "max_length": LENGTH}


def quiet(folder: Path, save: Callable[[Path], Path]) -> Path:
    with without_messages():
        return save(folder)


def unit(output: Tensor) -> np.ndarray:
    return np.asarray(torch.nn.functional.normalize(output.pooler_output, dim=1))


@pytest.mark.parametrize("save", BARE, ids=lambda save: save.__name__)
def test_a_folder_of_transformers_has_the_vectors_of_transformers(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = quiet(tmp_path / "model", save)
    encoder = load_encoder(str(folder), compiled=False)
    photos = [photo(*size) for size in SIZES]
    texts = ["a red coat", "shoe", "x" * 300, "a coat, blue, size 42"]
    with without_messages(), torch.inference_mode():
        model = AutoModel.from_pretrained(folder).eval()
        pixels = AutoImageProcessor.from_pretrained(folder)(images=photos, return_tensors="pt")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        padding = {"padding": True} if save is save_bare_clip else PADDED
        tokens = tokenizer(texts, truncation=True, return_tensors="pt", **padding)
        pictures = unit(model.get_image_features(**pixels))
        words = unit(model.get_text_features(**tokens))
    assert np.abs(encoder.encode_pictures(photos) - pictures).max() < CLOSE
    assert np.abs(encoder.encode_words(texts) - words).max() < CLOSE


def test_siglip_reads_capitals_as_small_letters(tmp_path: Path) -> None:
    encoder = load_encoder(str(quiet(tmp_path / "model", save_siglip2)), compiled=False)
    one, other = encoder.encode_words(["A Red COAT", "a red coat"])
    assert one @ other == pytest.approx(1, abs=CLOSE)


@pytest.mark.parametrize("kind", [SIGLIP, CLIP])
def test_a_folder_of_open_clip_has_the_vectors_of_open_clip(kind: str, tmp_path: Path) -> None:
    expected = json.loads(REFERENCE.read_text())[kind]
    encoder = load_encoder(str(save_small_open_clip(tmp_path / kind, kind)), compiled=False)
    pictures = encoder.encode_pictures([photo(*size) for size in SIZES])
    assert np.abs(pictures - np.array(expected["pictures"])).max() < CLOSE
    assert np.abs(encoder.encode_words(TEXTS) - np.array(expected["texts"])).max() < CLOSE


@pytest.mark.parametrize("kind", [SIGLIP, CLIP])
def test_openvino_encodes_what_open_clip_wrote(kind: str, tmp_path: Path) -> None:
    folder = save_small_open_clip(tmp_path / kind, kind)
    encoder = load_encoder(str(folder), compiled_cache=tmp_path / "cache")
    assert encoder.runtime.startswith("OpenVINO"), encoder.runtime
    expected = json.loads(REFERENCE.read_text())[kind]["pictures"]
    pictures = encoder.encode_pictures([photo(*size) for size in SIZES])
    assert (pictures * np.array(expected)).sum(axis=1).min() > 0.9999


def test_code_of_a_model_is_not_run_where_open_clip_weights_are(tmp_path: Path) -> None:
    folder = save_small_open_clip(tmp_path / "model", SIGLIP)
    plain = load_encoder(str(folder), compiled=False)
    add_own_code(folder)
    assert load_encoder(str(folder), compiled=False).fingerprint == plain.fingerprint


def test_loading_a_folder_of_any_layout_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = [quiet(tmp_path / save.__name__, save) for save in BARE]
    folders += [save_small_open_clip(tmp_path / kind, kind) for kind in (SIGLIP, CLIP)]
    capfd.readouterr()
    for folder in folders:
        load_encoder(str(folder), compiled=False)
    assert capfd.readouterr() == ("", "")


# --- what is refused ---


def refusal(folder: Path) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        load_encoder(str(folder), compiled=False)
    text = str(caught.value)
    assert str(folder) in text and "\n" not in text
    return text


def test_the_picture_half_of_a_siglip_is_refused_by_name(tmp_path: Path) -> None:
    text = refusal(quiet(tmp_path / "half", save_picture_half))
    assert "picture half" in text and "siglip_vision_model" in text and "whole model" in text


def test_a_model_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    assert "'dinov2'" in refusal(tmp_path)


def test_a_model_that_needs_its_own_code_is_refused(tmp_path: Path) -> None:
    add_own_code(tmp_path)
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    assert "code of its own, which is never run" in refusal(tmp_path)


def test_pickled_weights_of_open_clip_are_refused(tmp_path: Path) -> None:
    folder = save_small_open_clip(tmp_path / "model", CLIP)
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    assert "pickled weights are never loaded" in refusal(folder)


@pytest.mark.parametrize("save", [save_siglip2, save_bare_clip], ids=lambda save: save.__name__)
def test_a_missing_weight_is_not_drawn_at_random(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = quiet(tmp_path / "model", save)
    weights = load_file(folder / "model.safetensors")
    del weights["vision_model.post_layernorm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "weights are missing, such as vision_model.post_layernorm.weight" in refusal(folder)


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        (CLIP, {"vision_cfg": {"layers": [3, 4, 6, 3]}}, "ResNet"),
        (CLIP, {"vision_cfg": {"attentional_pool": True}}, "vision_cfg.attentional_pool"),
        (CLIP, {"vision_cfg": {"pool_type": "avg"}}, "vision_cfg.pool_type"),
        (CLIP, {"text_cfg": {"hf_model_name": "xlm-roberta-base"}}, "text_cfg.hf_model_name"),
        (CLIP, {"multimodal_cfg": {"width": 64}}, "model_cfg.multimodal_cfg"),
        (SIGLIP, {"vision_cfg": {"timm_model_name": "convnext_base"}}, "convnext_base"),
        (SIGLIP, {"vision_cfg": {"timm_pool": "avg"}}, "vision_cfg.timm_pool"),
        (SIGLIP, {"text_cfg": {"pool_type": "first"}}, "text_cfg.pool_type"),
        (SIGLIP, {"text_cfg": {"layers": 3}}, "weights are not those of its configuration"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_network_of_open_clip_that_is_not_computed_is_refused_by_name(
    kind: str, changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    assert named in refusal(save_small_open_clip(tmp_path / "model", kind, changes=changes))


@pytest.mark.parametrize(("package", "extra"), [("ftfy", "openclip"), ("sentencepiece", "siglip")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "ftfy":
        folder = save_small_open_clip(tmp_path / "model", CLIP)
        monkeypatch.setitem(sys.modules, "ftfy", None)
    else:
        folder = quiet(tmp_path / "model", save_siglip)
        monkeypatch.setattr(
            "transformers.models.auto.tokenization_auto.tokenizer_class_from_name", _needs_package
        )
    assert f"pip install 'lookalike[{extra}]'" in refusal(folder)


def _needs_package(name: str) -> None:
    raise ImportError(f"\n{name} requires the SentencePiece library but it was not found.\n")


# --- presets ---


def test_a_preset_is_recorded_under_its_full_name_with_its_ending() -> None:
    assert full_name("siglip2") == "google/siglip2-base-patch16-224"
    assert full_name("siglip2-int8") == "google/siglip2-base-patch16-224-int8"
    assert full_name("clip@327a") == "clip-ViT-B-32@327a"
    assert full_name("clip-ViT-B-32") == "clip-ViT-B-32"
    assert full_name("./clip") == "./clip"


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_is_loaded_from_its_pinned_commit(
    preset: Preset, tmp_path: Path, small_of: Callable[[str], Path]
) -> None:
    """From a download cache that holds the pinned commit and a newer one."""
    repository = tmp_path / ("models--" + preset.repository.replace("/", "--"))
    pinned = repository / "snapshots" / preset.commit
    pinned.parent.mkdir(parents=True)
    pinned.symlink_to(small_of(preset.name))
    (repository / "snapshots" / ("0" * 40)).mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    encoder = load_encoder(preset.name, cache=tmp_path, offline=True, compiled=False)
    assert (encoder.name, encoder.revision) == (preset.model, preset.commit)
    assert encoder.reads_words
    check_words_and_pictures(encoder)


def check_words_and_pictures(encoder: Encoder) -> None:
    white = encoder.encode_pictures([Image.new("RGB", (40, 30), "white")])
    assert white.shape == encoder.encode_words(["white"]).shape


@pytest.fixture(scope="module")
def small_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small model in the layout of a preset's commit."""

    def save(name: str) -> Path:
        folder = tmp_path_factory.mktemp("presets") / name
        if name == "siglip2":
            return quiet(folder, save_siglip2)
        if name == "clip":
            return save_published_clip(folder)
        add_own_code(save_small_open_clip(folder, SIGLIP))
        return folder

    return save
