"""Devices and precisions: the choice, what is verified, and what is refused with what to do.

No test has a graphics card: what torch says about cards is replaced where it says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from app.config import Settings
from app.encoders.base import EMBEDDED, HALF, INT8, Encoder, split_variant
from app.encoders.devices import Placement, choose_device, in_batches, moved, place
from app.encoders.loading import load_encoder
from app.errors import ModelUnavailable
from app.types import Vectors
from support.small_clip import without_messages
from support.small_dual_encoders import save_siglip2
from support.small_open_clip import CLIP, SIZES, photo, save_small_open_clip

pytestmark = pytest.mark.xdist_group("clip")

TEXTS = ["a red coat", "a blue shoe, size 42"]
WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch as it is where it has one graphics card."""
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with without_messages():
        return save_siglip2(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def full(folder: Path) -> Encoder:
    return load_encoder(str(folder), compiled=False)


# --- the choice ---


def test_without_a_graphics_card_the_processor_is_taken() -> None:
    assert choose_device("auto") == choose_device("cpu") == "cpu"


def test_auto_takes_a_graphics_card_before_apples(
    cards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert choose_device("auto") == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == choose_device("mps") == "mps"


def test_a_card_is_chosen_by_its_number(cards: None) -> None:
    assert choose_device("cuda:0") == "cuda:0"
    with pytest.raises(ModelUnavailable, match=r"cuda:3, but there are 1 .*LOOKALIKE_DEVICE to"):
        choose_device("cuda:3")


def test_a_build_of_torch_without_cuda_is_named() -> None:
    with pytest.raises(ModelUnavailable, match=r"build for processors: .*LOOKALIKE_DEVICE to auto"):
        choose_device("cuda")


def test_a_missing_card_is_named(cards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelUnavailable, match=r"nvidia-smi.*LOOKALIKE_DEVICE to auto or cpu"):
        choose_device("cuda")


def test_mps_is_refused_elsewhere() -> None:
    with pytest.raises(ModelUnavailable, match="Mac with Apple silicon"):
        choose_device("mps")


@pytest.mark.parametrize("value", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_other_words_for_a_device_are_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        Settings(device=value)


def test_a_card_that_cannot_run_the_model_is_named_with_torchs_reason(
    folder: Path, cards: None
) -> None:
    with pytest.raises(ModelUnavailable, match=r"cannot run on cuda \(.*CUDA.*LOOKALIKE_DEVICE"):
        load_encoder(str(folder), device="cuda")


def test_the_processor_is_used_where_it_is_asked_for_despite_a_card(
    folder: Path, cards: None
) -> None:
    assert load_encoder(str(folder), device="cpu", compiled=False).batch_size == 32


# --- verification on a device ---


class Moving:
    """A model whose vectors turn by an angle when it is moved."""

    def __init__(self, angle: float) -> None:
        self.angle, self.moved_to = angle, ""

    def to(self, *, device: str, dtype: torch.dtype) -> None:
        self.moved_to = f"{device} {dtype}"

    def probe(self) -> Sequence[Vectors]:
        angle = self.angle if self.moved_to else 0.0
        return [np.array([[np.cos(angle), np.sin(angle)]], np.float32)]


@pytest.mark.parametrize(
    ("suffix", "angle", "accepted"),
    [("", 0.01, True), ("", 0.03, False), ("-bf16", 0.03, True), ("-bf16", 0.06, False)],
)
def test_other_vectors_than_the_processors_are_refused(
    suffix: str, angle: float, accepted: bool
) -> None:
    model: Any = Moving(angle)
    placement = Placement("cuda", suffix)
    if accepted:
        place(model, placement, model.probe)
        assert model.moved_to == f"cuda {placement.dtype}"
    else:
        with pytest.raises(ModelUnavailable, match=r"On cuda.* other vectors \(cosine 0\.99"):
            place(model, placement, model.probe)


def test_a_card_computes_32_bits_in_32_bits() -> None:
    model: Any = Moving(0)
    place(model, Placement("cuda"), model.probe)
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_pictures_go_to_a_card_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *_, **options: calls.append(options) or self
    )
    moved(torch.zeros(1), torch.device("cuda"))
    assert calls == ["pinned", {"non_blocking": True}]


def test_a_batch_that_exceeds_the_memory_of_a_card_is_halved() -> None:
    sizes: list[int] = []

    def encode(batch: Sequence[np.ndarray]) -> Vectors:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return np.stack(batch).astype(np.float32)

    items = [np.array([number], np.uint8) for number in range(13)]
    rows = np.concatenate(in_batches(encode, items, 8))
    assert rows[:, 0].tolist() == list(range(13))
    assert sizes == [8, 4, 2, 2, 4, 2, 2, 5, 3, 2]


def test_one_picture_that_exceeds_the_memory_is_an_error() -> None:
    def encode(_: Sequence[np.ndarray]) -> Vectors:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_batches(encode, [np.zeros(1)] * 4, 4)


def test_batches_are_larger_on_a_card() -> None:
    assert Placement("cuda:1").batch_size > Placement("cpu").batch_size


# --- 16 bits ---


@pytest.mark.parametrize("suffix", HALF)
def test_16_bits_are_another_model_with_nearly_the_same_vectors(
    suffix: str, folder: Path, full: Encoder
) -> None:
    half = load_encoder(f"{folder}{suffix}")
    assert half.name == full.name + suffix
    assert half.runtime == f"torch (the model runs on cpu in {HALF[suffix]})"
    photos = [photo(*size) for size in SIZES]
    for ours, theirs in (
        (half.encode_pictures(photos), full.encode_pictures(photos)),
        (half.encode_words(TEXTS), full.encode_words(TEXTS)),
        (
            half.pool_windows(half.encode_map(photos[0]), [WHOLE]),
            full.pool_windows(full.encode_map(photos[0]), [WHOLE]),
        ),
    ):
        assert ours.dtype == np.float32
        assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
        assert (ours * theirs).sum(axis=1).min() > 0.999
        assert not np.array_equal(ours, theirs)


def test_each_precision_has_a_fingerprint_of_its_own(folder: Path, full: Encoder) -> None:
    names = [f"{folder}{suffix}" for suffix in HALF]
    prints = [load_encoder(name).fingerprint for name in (*names, *names)]
    assert prints[:2] == prints[2:]
    assert len({*prints, full.fingerprint}) == 3


def test_a_model_that_does_not_fit_into_16_bits_is_refused(tmp_path: Path) -> None:
    folder = save_small_open_clip(tmp_path / "model", CLIP)
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["visual.conv1.weight"] *= 1e6
    save_file(weights, folder / "open_clip_model.safetensors", {"format": "pt"})
    with pytest.raises(ModelUnavailable, match=r"float16 the model has other vectors .*32 bits"):
        load_encoder(f"{folder}-fp16")


def test_the_embedded_encoder_has_no_version_in_16_bits() -> None:
    with pytest.raises(ModelUnavailable, match=f"take {EMBEDDED} or {EMBEDDED}{INT8}"):
        load_encoder(f"{EMBEDDED}-bf16")


def test_a_variant_is_split_from_its_model() -> None:
    assert split_variant("clip-int8") == ("clip", "-int8")
    assert split_variant("siglip2-bf16") == ("siglip2", "-bf16")
    assert split_variant("siglip2") == ("siglip2", "")
