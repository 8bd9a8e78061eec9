"""Compiled models: OpenVINO computes the vectors of torch, or torch runs and the reason is told."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from app.bootstrap import App
from app.encoders import openvino_runtime, quantization
from app.encoders.base import EMBEDDED, Encoder
from app.encoders.compiled_cache import CompiledCache, OpenVinoGraph, RuntimeState
from app.encoders.compiled_model import MIN_COSINE, CompileOptions, Network, compile_network
from app.encoders.loading import load_encoder
from app.encoders.probe_images import probe_images
from app.errors import ModelUnavailable
from app.operations.health import status
from support.paths import REPO
from support.small_clip import save_small_clip

pytestmark = pytest.mark.xdist_group("clip")

SHAPE = (8, 8)
CLOSE = 1e-5
KEY = f"Small 0 {SHAPE} {openvino_runtime.version()} torch {torch.__version__}"


class Small(nn.Module):
    """A minimal encoder: a few weights, unit rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 16)
        nn.init.constant_(self.layer.bias, 0.1)

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.normalize(self.layer(pictures.flatten(1).float() / 255), dim=1)


class NotConvertible(Small):
    """Uses an operation that OpenVINO does not have."""

    def forward(self, pictures: Tensor) -> Tensor:
        rows = super().forward(pictures)
        return rows if not torch.jit.is_tracing() else torch.linalg.matrix_exp(rows.T @ rows)[:2]


class WrongTrace(Small):
    """Its trace computes other vectors."""

    def forward(self, pictures: Tensor) -> Tensor:
        rows = super().forward(pictures)
        return rows.flip(1) if torch.jit.is_tracing() else rows


class NotFinite(Small):
    """Its trace divides by zero."""

    def forward(self, pictures: Tensor) -> Tensor:
        rows = super().forward(pictures)
        return rows / 0 if torch.jit.is_tracing() else rows


def network(kind: type[Small] = Small, *, seed: int = 0) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(kind().eval(), SHAPE, f"{kind.__name__} {seed}")


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    return CompiledCache(tmp_path / "compiled")


@pytest.fixture
def options(cache: CompiledCache) -> CompileOptions:
    return CompileOptions(cache)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(openvino_runtime, "export", refuse)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_clip(tmp_path_factory.mktemp("compiled") / "small-clip")


@pytest.fixture(params=["clip", "embedded"])
def model(request: pytest.FixtureRequest, clip_folder: Path) -> str:
    return EMBEDDED if request.param == "embedded" else str(clip_folder)


def mixed(encoder: Encoder, count: int) -> list[np.ndarray]:
    height, width, _ = encoder.prepare(Image.new("RGB", (8, 8))).shape
    return list(probe_images(count, (height, width), first=50))


def cached_files(cache: CompiledCache) -> list[Path]:
    return sorted(cache.folder.glob("*.tower"))


# --- vectors ---


def test_a_compiled_model_has_the_vectors_and_the_fingerprint_of_torch(model: str) -> None:
    ours, theirs = load_encoder(model), load_encoder(model, compiled=False)
    assert ours.runtime.startswith("OpenVINO") and theirs.runtime.startswith("torch")
    assert ours.fingerprint == theirs.fingerprint
    pictures = mixed(ours, 9)
    rows, expected = ours.encode_prepared(pictures), theirs.encode_prepared(pictures)
    assert np.abs(rows - expected).max() < CLOSE


def test_several_threads_get_the_vectors_of_one_thread(options: CompileOptions) -> None:
    compiled, pictures = compile_network(network(), options), probe_images(24, SHAPE)
    expected = compiled.run(pictures)
    batches = [pictures[:number] for number in range(1, 25)] * 4
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(compiled.run, batches))
    assert all(np.abs(rows - expected[: len(rows)]).max() < CLOSE for rows in found)


def test_a_compiled_model_with_several_streams_gives_the_vectors_of_one_stream(model: str) -> None:
    one, several = load_encoder(model), load_encoder(model, streams=2)
    assert several.runtime.startswith("OpenVINO")
    assert several.fingerprint == one.fingerprint
    batches = [mixed(one, count) for count in (5, 1, 4, 3)]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(several.encode_prepared, batches))
    for rows, batch in zip(found, batches, strict=True):
        assert np.abs(rows - one.encode_prepared(batch)).max() < CLOSE


def test_a_model_is_compiled_for_the_given_number_of_streams(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Noted(openvino_runtime.OpenVinoModel):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(openvino_runtime, "OpenVinoModel", Noted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for streams in (1, 2):
        load_encoder(model, streams=streams)
        assert made[-1]._model.get_property("NUM_STREAMS") == streams


# --- fallback to torch ---


@pytest.mark.parametrize(("kind", "reason"), [
    (NotConvertible, "matrix_exp"),
    (WrongTrace, "not those of torch"),
    (NotFinite, "not finite"),
])  # fmt: skip
def test_torch_runs_where_the_network_cannot_be_compiled_or_its_vectors_differ(
    kind: type[Small], reason: str, options: CompileOptions, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        compiled = compile_network(network(kind), options)
    assert compiled.state.library == "torch" and reason in str(compiled.state.reason)
    assert reason in caplog.text
    assert np.array_equal(
        compiled.run(probe_images(3, SHAPE)), network(kind)(probe_images(3, SHAPE))
    )
    assert cached_files(options.cache) == []


def test_torch_runs_without_openvino_and_the_reason_is_recorded(
    monkeypatch: pytest.MonkeyPatch, options: CompileOptions
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    compiled = compile_network(network(), options)
    assert compiled.state.library == "torch" and "openvino" in str(compiled.state.reason)
    assert options.cache.load_state("Small 0") == compiled.state


def test_torch_runs_when_openvino_is_switched_off(cache: CompiledCache) -> None:
    compiled = compile_network(network(), CompileOptions(cache, off="switched off"))
    assert compiled.state == RuntimeState("torch", "switched off")
    assert cached_files(cache) == []


def test_a_small_deviation_from_torch_is_detected(
    monkeypatch: pytest.MonkeyPatch, options: CompileOptions
) -> None:
    compile_network(network(), options)
    exact = openvino_runtime.OpenVinoModel.__call__

    def tilted(self: openvino_runtime.OpenVinoModel, pixels: np.ndarray) -> np.ndarray:
        rows = exact(self, pixels)
        rows[:, 0] += 0.02
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(openvino_runtime.OpenVinoModel, "__call__", tilted)
    compiled = compile_network(network(), options)
    assert compiled.state.library == "torch"


def test_compiling_does_not_change_logging(options: CompileOptions) -> None:
    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    compile_network(network(), options)
    assert (root.level, root.filters, root.handlers) == before


# --- the cache ---


def test_a_network_is_exported_once(
    options: CompileOptions, request: pytest.FixtureRequest
) -> None:
    before = compile_network(network(), options).run(probe_images(2, SHAPE))
    request.getfixturevalue("no_export")
    compiled = compile_network(network(), options)
    assert compiled.state.library.startswith("OpenVINO")
    assert np.array_equal(compiled.run(probe_images(2, SHAPE)), before)


def test_an_export_does_not_depend_on_earlier_exports() -> None:
    first = openvino_runtime.export(network().module, SHAPE)
    openvino_runtime.export(network(seed=1).module, SHAPE)
    assert openvino_runtime.export(network().module, SHAPE).sha256 == first.sha256


def test_two_networks_have_two_compiled_models(options: CompileOptions) -> None:
    one, other = (
        compile_network(network(seed=1), options),
        compile_network(network(seed=2), options),
    )
    assert len(cached_files(options.cache)) == 2
    assert np.abs(one.run(probe_images(2, SHAPE)) - other.run(probe_images(2, SHAPE))).max() > 0.01


def empty(path: Path, other: bytes) -> None:
    path.write_bytes(b"")


def cut(path: Path, other: bytes) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flipped(path: Path, other: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def foreign(path: Path, other: bytes) -> None:
    path.write_bytes(other)


def no_head(path: Path, other: bytes) -> None:
    path.write_bytes(b'{"layers": -1}\n' + other)


@pytest.mark.parametrize("damage", [empty, cut, flipped, foreign, no_head])
def test_a_damaged_or_foreign_file_is_built_again(
    damage: object, options: CompileOptions, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    strange = CompileOptions(CompiledCache(tmp_path / "strange"))
    compile_network(network(seed=2), strange)
    expected = compile_network(network(), options).run(probe_images(2, SHAPE))
    [path], [other] = cached_files(options.cache), cached_files(strange.cache)
    assert callable(damage)
    damage(path, other.read_bytes())
    assert options.cache.read(KEY) is None
    assert np.array_equal(compile_network(network(), options).run(probe_images(2, SHAPE)), expected)
    request.getfixturevalue("no_export")
    assert compile_network(network(), options).state.library.startswith("OpenVINO")


@pytest.mark.parametrize("layers", [b"no layers at all", None])
def test_a_valid_file_with_the_wrong_graph_is_built_again(
    options: CompileOptions, cache: CompiledCache, layers: bytes | None
) -> None:
    compile_network(network(), options)
    other = openvino_runtime.export(network(seed=2).module, SHAPE)
    assert cache.read(KEY) is not None
    cache.write(KEY, OpenVinoGraph(layers, b"") if layers else other)
    compiled = compile_network(network(), options)
    assert compiled.state.library.startswith("OpenVINO")
    assert (
        np.abs(compiled.run(probe_images(2, SHAPE)) - network()(probe_images(2, SHAPE))).max()
        < CLOSE
    )
    assert cache.read(KEY) not in (other, None)


def test_a_folder_that_cannot_be_written_disables_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    compiled = compile_network(
        network(), CompileOptions(CompiledCache(tmp_path / "file" / "compiled"))
    )
    assert compiled.state.library.startswith("OpenVINO")


def test_no_temporary_files_remain(options: CompileOptions) -> None:
    compile_network(network(), options)
    assert {path.suffix for path in options.cache.folder.iterdir()} == {".tower", ".json"}


def test_an_interrupted_write_leaves_no_file(
    cache: CompiledCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.atomic_files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.write("key", OpenVinoGraph(b"layers", b"weights"))
    assert list(cache.folder.iterdir()) == []


# --- int8 ---


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


# --- side effects ---


def test_status_names_the_library_that_encodes_pictures(app: App) -> None:
    model, cache = app.encoder(), CompiledCache(app.settings.compiled_cache_folder)
    cache.save_state(model.fingerprint, RuntimeState("torch", "ImportError: no openvino"))
    found = status(app.engine, app.files, app.settings).as_dict()["encoder"]
    assert found["value"] == "torch" and "no openvino" in found["advice"] and found["ok"]
    cache.save_state(model.fingerprint, RuntimeState("OpenVINO 2026.4.1"))
    found = status(app.engine, app.files, app.settings).as_dict()["encoder"]
    assert (found["value"], found["advice"]) == ("OpenVINO 2026.4.1", None)


def test_compiling_sends_no_telemetry(tmp_path: Path) -> None:
    """OpenVINO would report to its makers: it must not even resolve a host name."""
    code = f"""
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
from pathlib import Path
from torch import nn
from app.encoders.compiled_cache import CompiledCache
from app.encoders.compiled_model import CompileOptions, Network, compile_network
class Mean(nn.Module):
    def forward(self, pictures):
        return nn.functional.normalize(pictures.float().mean((1, 2)) + 1, dim=1)
options = CompileOptions(CompiledCache(Path({str(tmp_path)!r})))
compiled = compile_network(Network(Mean().eval(), (8, 8), "mean"), options)
print(seen, compiled.state.library.split()[0])
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=REPO, env=environment,
    )  # fmt: skip
    assert done.stdout.strip() == "[] OpenVINO"
    assert not (tmp_path / "intel").exists()


def test_probe_images_are_reproducible_and_differ_from_each_other() -> None:
    first, again = probe_images(20, (40, 30)), probe_images(20, (40, 30))
    assert first.shape == (20, 40, 30, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.array_equal(probe_images(5, (40, 30), first=15), first[15:])
    assert len({picture.tobytes() for picture in first}) == 20


def test_the_minimum_cosine_is_the_documented_one() -> None:
    assert MIN_COSINE == 0.9999
