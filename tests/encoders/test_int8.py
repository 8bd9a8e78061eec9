"""Models in int8: nearly the same vectors, another model, and an error where it cannot be made."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.encoders import openvino_runtime, quantization
from app.encoders.base import EMBEDDED, Encoder
from app.encoders.compiled_model import CompileOptions, compile_network
from app.encoders.loading import load_encoder
from app.errors import ModelUnavailable
from support.small_networks import SHAPE, mixed, network

pytestmark = pytest.mark.xdist_group("clip")

CLOSE = 1e-5


@pytest.fixture(scope="session")
def pair(clip_folder: Path) -> tuple[Encoder, Encoder]:
    """A small CLIP, and the same quantized to 8 bits."""
    return load_encoder(str(clip_folder)), load_encoder(f"{clip_folder}-int8")


def test_int8_is_another_model(pair: tuple[Encoder, Encoder], clip_folder: Path) -> None:
    full, int8 = pair
    assert (full.name, int8.name) == ("small-clip", "small-clip-int8")
    assert int8.fingerprint != full.fingerprint
    assert int8.revision != full.revision
    assert int8.runtime.endswith("int8")
    assert load_encoder(f"{clip_folder}-int8").fingerprint == int8.fingerprint


def test_int8_vectors_are_close_to_the_full_ones(pair: tuple[Encoder, Encoder]) -> None:
    full, int8 = pair
    pictures = mixed(full, 40)
    one, other = full.encode_prepared(pictures), int8.encode_prepared(pictures)
    assert (one * other).sum(axis=1).min() > 0.97
    assert np.abs(one - other).max() > CLOSE
    assert np.allclose(np.linalg.norm(other, axis=1), 1, atol=CLOSE)


def test_an_int8_vector_does_not_depend_on_the_rest_of_the_batch(
    pair: tuple[Encoder, Encoder],
) -> None:
    _, int8 = pair
    pictures = mixed(int8, 33)
    alone = np.concatenate([int8.encode_prepared([one]) for one in pictures])
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(int8.encode_prepared, [pictures] * 4))
    assert all(np.abs(rows - alone).max() < CLOSE for rows in found)


def test_an_int8_model_encodes_texts_in_full_precision(pair: tuple[Encoder, Encoder]) -> None:
    full, int8 = pair
    assert np.array_equal(full.encode_words(["a red coat"]), int8.encode_words(["a red coat"]))


def test_a_folder_whose_name_ends_in_int8_is_not_quantized(
    clip_folder: Path, tmp_path: Path, pair: tuple[Encoder, Encoder]
) -> None:
    folder = tmp_path / "mine-int8"
    folder.symlink_to(clip_folder)
    assert load_encoder(str(folder)).fingerprint == pair[0].fingerprint


@pytest.fixture
def no_nncf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda _: None)


def test_an_int8_model_quantized_on_another_processor_is_the_same(
    pair: tuple[Encoder, Encoder], clip_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    made = load_encoder(f"{clip_folder}-int8", compiled_cache=tmp_path)
    assert made.fingerprint == pair[1].fingerprint


def test_a_cached_int8_model_does_not_need_nncf(
    pair: tuple[Encoder, Encoder], clip_folder: Path, no_nncf: None
) -> None:
    assert load_encoder(f"{clip_folder}-int8").fingerprint == pair[1].fingerprint


def test_without_nncf_the_error_names_the_package_to_install(
    options: CompileOptions, no_nncf: None
) -> None:
    with pytest.raises(ModelUnavailable, match=r"nncf.*pip install 'lookalike\[int8\]'"):
        compile_network(network(), options, int8=True)


def test_int8_is_refused_where_openvino_is_missing(
    options: CompileOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelUnavailable, match="openvino"):
        compile_network(network(), options, int8=True)


def test_torch_never_runs_an_int8_model() -> None:
    with pytest.raises(ModelUnavailable, match="torch alone"):
        compile_network(network(), None, int8=True)


def test_int8_is_refused_where_a_setting_switches_openvino_off(
    pair: tuple[Encoder, Encoder], clip_folder: Path
) -> None:
    """Even if it is cached: OpenVINO may be switched off because it fails on this machine."""
    with pytest.raises(ModelUnavailable, match=r"LOOKALIKE_OPENVINO is off.*turn it on, or"):
        load_encoder(f"{clip_folder}-int8", compiled=False)


def test_an_int8_graph_of_another_network_is_refused(
    options: CompileOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = openvino_runtime.export(network(seed=2).module, SHAPE)
    monkeypatch.setattr("app.encoders.compiled_model.quantize", lambda *_: other)
    with pytest.raises(ModelUnavailable, match="not those of torch"):
        compile_network(network(), options, int8=True)


def test_the_error_of_a_failed_quantization_has_the_reason(
    options: CompileOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "_SCRIPT", Path("/no/such/script.py"))
    with pytest.raises(ModelUnavailable, match=r"quantizing failed.*script\.py"):
        compile_network(network(), options, int8=True)


def test_quantization_has_a_timeout(
    options: CompileOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeps.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(quantization, "_SCRIPT", tmp_path / "sleeps.py")
    monkeypatch.setattr(quantization, "_TIMEOUT_S", 0.1)
    with pytest.raises(ModelUnavailable, match=r"longer than 0\.1 s"):
        compile_network(network(), options, int8=True)


def test_the_embedded_encoder_has_nearly_the_same_recall_in_int8(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantization, "ROWS", 1)  # calibrated with 6 pictures, in a third less time
    full, int8 = load_encoder(EMBEDDED), load_encoder(f"{EMBEDDED}-int8")
    assert int8.name == "embedded-int8" and int8.fingerprint != full.fingerprint
    np.testing.assert_array_equal(*(each.encode_words(["coat"]) for each in (full, int8)))
    pictures = mixed(full, 30)
    dimmed = [(picture * 0.6 + 20).astype(np.uint8)[:, ::-1].copy() for picture in pictures]
    recalls = [_recall(each, pictures, dimmed) for each in (full, int8)]
    assert recalls[0] > 0.9 and recalls[1] > recalls[0] - 0.05


def _recall(encoder: Encoder, pictures: list[np.ndarray], queries: list[np.ndarray]) -> float:
    similarities = encoder.encode_prepared(queries) @ encoder.encode_prepared(pictures).T
    return float((similarities.argmax(axis=1) == np.arange(len(queries))).mean())
