"""Loading a model: what is refused, and which one is chosen automatically."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from app.encoders import hub
from app.encoders.base import AUTO, CLIP, EMBEDDED
from app.encoders.loading import choose_encoder, load_encoder
from app.errors import ModelUnavailable
from support.paths import REPO
from support.small_clip import DIM

pytestmark = pytest.mark.xdist_group("clip")


# --- what is refused ---


def test_pickled_weights_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "pickled")
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="pickle"):
        load_encoder(str(copy))


def test_a_pickle_next_to_safetensors_is_ignored(clip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "both")
    (copy / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert load_encoder(str(copy)).dim == DIM


def test_a_model_with_its_own_code_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "foreign")
    (copy / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "own.Code"}]')
    (copy / "own.py").write_text("raise SystemExit('code of the model was run')")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        load_encoder(str(copy))


def test_loading_and_using_a_model_writes_nothing_to_stderr(
    clip_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging as transformers_logging

    from app.encoders.clip import ClipEncoder

    bars = transformers_logging.is_progress_bar_enabled()
    encoder = ClipEncoder.load(clip_folder, name="small")
    encoder.encode_pictures([Image.new("RGB", (40, 30))])
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.is_progress_bar_enabled() == bars


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="holds no model"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_model_is_refused(clip_folder: Path, tmp_path: Path, damage: str) -> None:
    from app.encoders.clip import ClipEncoder

    copy = shutil.copytree(clip_folder, tmp_path / "damaged")
    (copy / damage).write_bytes((copy / damage).read_bytes()[:100])
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        ClipEncoder.load(copy, name="damaged")


def test_a_model_without_its_vocabulary_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "speechless")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable, match="vocabulary"):
        load_encoder(str(copy))


@pytest.mark.parametrize(
    "name",
    ["/no/such/folder", "./missing", "no model at all", "", "x" * 300, "~nosuch/x"],
    ids=lambda name: name[:20],
)
def test_a_name_that_is_neither_folder_nor_hub_name_is_refused(name: str) -> None:
    with pytest.raises(ModelUnavailable, match="neither a folder nor a hub name"):
        load_encoder(name, offline=True)


def test_a_model_that_is_not_in_the_cache_is_refused_offline(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"not in .* downloads are switched off"):
        load_encoder(CLIP, cache=tmp_path, offline=True)


def test_an_interrupted_download_is_not_used(clip_cache: Path, tmp_path: Path) -> None:
    cache = shutil.copytree(clip_cache, tmp_path / "cache")
    for weights in cache.rglob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ModelUnavailable, match="downloads are switched off"):
        load_encoder(CLIP, cache=cache, offline=True)


# --- the automatic choice ---


def test_auto_takes_clip_when_the_cache_holds_it(clip_cache: Path) -> None:
    choice = choose_encoder(AUTO, cache=clip_cache, offline=True)
    assert choice.encoder.name == CLIP
    assert CLIP in choice.note


def test_auto_takes_the_embedded_encoder_without_clip_and_gives_the_reason(tmp_path: Path) -> None:
    choice = choose_encoder(AUTO, cache=tmp_path, offline=True)
    assert choice.encoder.name == EMBEDDED
    assert "downloads are switched off" in choice.note


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}"
        )
        yield


def test_auto_takes_the_embedded_encoder_when_the_hub_is_silent(
    monkeypatch: pytest.MonkeyPatch, silent_hub: None, tmp_path: Path
) -> None:
    assert hub.PROBE_S <= 5, "the time that the first command waits for a hub"
    monkeypatch.setattr(hub, "PROBE_S", 0.3)
    assert hub._hub_error(), "a hub that takes connections and never answers"
    choice = choose_encoder(AUTO, cache=tmp_path)
    assert choice.encoder.name == EMBEDDED
    assert "cannot be reached" in choice.note


def test_auto_decides_within_the_probe_time_when_names_do_not_resolve(
    monkeypatch: pytest.MonkeyPatch, silent_hub: None, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "_hub_error", lambda: time.sleep(300))
    monkeypatch.setattr(hub, "PROBE_S", 0.2)
    assert "no answer in 0.2 s" in choose_encoder(AUTO, cache=tmp_path).note


def test_importing_the_loader_imports_no_heavy_library() -> None:
    heavy = ["torch", "transformers", "sentence_transformers", "huggingface_hub"]
    code = f"import sys, app.encoders.loading; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=REPO,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
