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
from torch import Tensor

from app.bootstrap import App
from app.encoders import openvino_runtime
from app.encoders.base import EMBEDDED
from app.encoders.compiled_cache import CompiledCache, RuntimeState
from app.encoders.compiled_model import MIN_COSINE, CompileOptions, compile_network
from app.encoders.loading import load_encoder
from app.encoders.probe_images import probe_images
from app.operations.health import status
from support.paths import REPO
from support.small_networks import SHAPE, Small, cached_files, mixed, network

pytestmark = pytest.mark.xdist_group("clip")

CLOSE = 1e-5


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


@pytest.fixture(params=["clip", "embedded"])
def model(request: pytest.FixtureRequest, clip_folder: Path) -> str:
    return EMBEDDED if request.param == "embedded" else str(clip_folder)


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
