"""The cache of compiled models: exported once, and built again where a file cannot be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from app.encoders import openvino_runtime
from app.encoders.compiled_cache import CompiledCache, OpenVinoGraph
from app.encoders.compiled_model import CompileOptions, compile_network
from app.encoders.probe_images import probe_images
from support.small_networks import SHAPE, cached_files, network

pytestmark = pytest.mark.xdist_group("clip")

CLOSE = 1e-5
KEY = f"Small 0 {SHAPE} {openvino_runtime.version()} torch {torch.__version__}"


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(openvino_runtime, "export", refuse)


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
