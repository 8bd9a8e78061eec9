"""Towers: what OpenVINO makes of a network is what torch makes, or torch does it and says why."""

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
from torch import Tensor, nn

from app.bootstrap import App
from app.encoders import openvino_runtime, quantization
from app.encoders.base import EMBEDDED, Encoder
from app.encoders.compiled_cache import CompiledCache, OpenVinoGraph, RuntimeState
from app.encoders.compiled_model import ALIKE, CompileOptions, Network, build
from app.encoders.loading import load_encoder
from app.encoders.probe_images import drawn
from app.errors import ModelUnavailable, NoWords
from app.operations.health import status
from support.paths import REPO
from support.small_clip import save_small_clip

SHAPE = (8, 8)
CLOSE = 1e-5
KEY = f"Small 0 {SHAPE} {openvino_runtime.version()} torch {torch.__version__}"


class Small(nn.Module):
    """Something like an encoder: a few weights, unit rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 16)
        nn.init.constant_(self.layer.bias, 0.1)

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.normalize(self.layer(pictures.flatten(1).float() / 255), dim=1)


class Unconvertible(Small):
    """Nothing but torch can do this."""

    def forward(self, pictures: Tensor) -> Tensor:
        rows = super().forward(pictures)
        return rows if not torch.jit.is_tracing() else torch.linalg.matrix_exp(rows.T @ rows)[:2]


class TracedOtherwise(Small):
    """Whose trace is not what it does."""

    def forward(self, pictures: Tensor) -> Tensor:
        rows = super().forward(pictures)
        return rows.flip(1) if torch.jit.is_tracing() else rows


class NotFinite(Small):
    """Whose trace divides by nothing."""

    def forward(self, pictures: Tensor) -> Tensor:
        rows = super().forward(pictures)
        return rows / 0 if torch.jit.is_tracing() else rows


def network(kind: type[Small] = Small, *, seed: int = 0) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(kind().eval(), SHAPE, f"{kind.__name__} {seed}")


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    return CompiledCache(tmp_path / "towers")


@pytest.fixture
def towers(cache: CompiledCache) -> CompileOptions:
    return CompileOptions(cache)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(openvino_runtime, "export", refuse)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_clip(tmp_path_factory.mktemp("towers") / "tower-clip")


@pytest.fixture(params=["clip", "embedded"])
def model(request: pytest.FixtureRequest, clip_folder: Path) -> str:
    return EMBEDDED if request.param == "embedded" else str(clip_folder)


def mixed(encoder: Encoder, count: int) -> list[np.ndarray]:
    shape = (32, 32) if "clip" in encoder.name else (256, 256)
    return list(drawn(count, shape, first=50))


def small_files(cache: CompiledCache) -> list[Path]:
    return sorted(cache.folder.glob("*.tower"))


# --- the same model ---


def test_the_tower_gives_the_vectors_and_the_fingerprint_of_torch(model: str) -> None:
    ours, theirs = load_encoder(model), load_encoder(model, compiled=False)
    assert ours.runs_in.startswith("OpenVINO") and theirs.runs_in.startswith("torch")
    assert ours.fingerprint == theirs.fingerprint
    pictures = mixed(ours, 9)
    found, expected = ours.encode_prepared(pictures), theirs.encode_prepared(pictures)
    assert np.abs(found - expected).max() < CLOSE


def test_threads_get_what_one_thread_gets(towers: CompileOptions) -> None:
    tower, pictures = build(network(), towers), drawn(24, SHAPE)
    expected = tower.run(pictures)
    batches = [pictures[:number] for number in range(1, 25)] * 4
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(tower.run, batches))
    assert all(np.abs(rows - expected[: len(rows)]).max() < CLOSE for rows in found)


def test_a_tower_of_several_streams_gives_the_vectors_of_one(model: str) -> None:
    one, several = load_encoder(model), load_encoder(model, streams=2)
    assert several.runs_in.startswith("OpenVINO")
    assert several.fingerprint == one.fingerprint
    batches = [mixed(one, count) for count in (5, 1, 4, 3)]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(several.encode_prepared, batches))
    for rows, batch in zip(found, batches, strict=True):
        assert np.abs(rows - one.encode_prepared(batch)).max() < CLOSE


def test_a_tower_is_compiled_for_so_many_batches_at_a_time(
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


# --- torch, and the reason ---


@pytest.mark.parametrize(("kind", "why"), [
    (Unconvertible, "matrix_exp"),
    (TracedOtherwise, "not those of torch"),
    (NotFinite, "not finite"),
])  # fmt: skip
def test_torch_answers_where_the_tower_cannot_be_made_or_disagrees(
    kind: type[Small], why: str, towers: CompileOptions, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tower = build(network(kind), towers)
    assert tower.state.library == "torch" and why in str(tower.state.why)
    assert why in caplog.text
    assert np.array_equal(tower.run(drawn(3, SHAPE)), network(kind)(drawn(3, SHAPE)))
    assert small_files(towers.cache) == []


def test_torch_answers_without_openvino_and_says_so(
    monkeypatch: pytest.MonkeyPatch, towers: CompileOptions
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    tower = build(network(), towers)
    assert tower.state.library == "torch" and "openvino" in str(tower.state.why)
    assert towers.cache.noted("Small 0") == tower.state


def test_torch_answers_when_it_is_asked_to(cache: CompiledCache) -> None:
    tower = build(network(), CompileOptions(cache, off="switched off"))
    assert tower.state == RuntimeState("torch", "switched off")
    assert small_files(cache) == []


def test_a_tower_far_from_torch_by_a_little_is_noticed(
    monkeypatch: pytest.MonkeyPatch, towers: CompileOptions
) -> None:
    build(network(), towers)
    exact = openvino_runtime.OpenVinoModel.__call__

    def tilted(self: openvino_runtime.OpenVinoModel, pixels: np.ndarray) -> np.ndarray:
        rows = exact(self, pixels)
        rows[:, 0] += 0.02
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(openvino_runtime.OpenVinoModel, "__call__", tilted)
    tower = build(network(), towers)
    assert tower.state.library == "torch"


def test_what_others_log_is_logged_as_before(towers: CompileOptions) -> None:
    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    build(network(), towers)
    assert (root.level, root.filters, root.handlers) == before


# --- the cache ---


def test_a_tower_is_exported_once(towers: CompileOptions, request: pytest.FixtureRequest) -> None:
    before = build(network(), towers).run(drawn(2, SHAPE))
    request.getfixturevalue("no_export")
    tower = build(network(), towers)
    assert tower.state.library.startswith("OpenVINO")
    assert np.array_equal(tower.run(drawn(2, SHAPE)), before)


def test_an_export_is_the_same_whatever_was_exported_before() -> None:
    first = openvino_runtime.export(network().module, SHAPE)
    openvino_runtime.export(network(seed=1).module, SHAPE)
    assert openvino_runtime.export(network().module, SHAPE).sha256 == first.sha256


def test_another_network_has_another_tower(towers: CompileOptions) -> None:
    one, other = build(network(seed=1), towers), build(network(seed=2), towers)
    assert len(small_files(towers.cache)) == 2
    assert np.abs(one.run(drawn(2, SHAPE)) - other.run(drawn(2, SHAPE))).max() > 0.01


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
def test_a_damaged_or_foreign_tower_is_made_again(
    damage: object, towers: CompileOptions, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    strange = CompileOptions(CompiledCache(tmp_path / "strange"))
    build(network(seed=2), strange)
    expected = build(network(), towers).run(drawn(2, SHAPE))
    [path], [other] = small_files(towers.cache), small_files(strange.cache)
    assert callable(damage)
    damage(path, other.read_bytes())
    assert towers.cache.read(KEY) is None
    assert np.array_equal(build(network(), towers).run(drawn(2, SHAPE)), expected)
    request.getfixturevalue("no_export")
    assert build(network(), towers).state.library.startswith("OpenVINO")


@pytest.mark.parametrize("layers", [b"no layers at all", None])
def test_a_sound_file_with_the_wrong_tower_in_it_is_made_again(
    towers: CompileOptions, cache: CompiledCache, layers: bytes | None
) -> None:
    build(network(), towers)
    other = openvino_runtime.export(network(seed=2).module, SHAPE)
    assert cache.read(KEY) is not None
    cache.write(KEY, OpenVinoGraph(layers, b"") if layers else other)
    tower = build(network(), towers)
    assert tower.state.library.startswith("OpenVINO")
    assert np.abs(tower.run(drawn(2, SHAPE)) - network()(drawn(2, SHAPE))).max() < CLOSE
    assert cache.read(KEY) not in (other, None)


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    tower = build(network(), CompileOptions(CompiledCache(tmp_path / "file" / "towers")))
    assert tower.state.library.startswith("OpenVINO")


def test_nothing_half_written_is_left(towers: CompileOptions) -> None:
    build(network(), towers)
    assert {path.suffix for path in towers.cache.folder.iterdir()} == {".tower", ".json"}


def test_writing_that_is_interrupted_leaves_nothing(
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
    """A small CLIP, and the same in 8-bit numbers."""
    return load_encoder(str(clip_folder)), load_encoder(f"{clip_folder}-int8")


def test_int8_is_another_model(pair: tuple[Encoder, Encoder], clip_folder: Path) -> None:
    whole, small = pair
    assert (whole.name, small.name) == ("tower-clip", "tower-clip-int8")
    assert small.fingerprint != whole.fingerprint
    assert small.revision != whole.revision
    assert small.runs_in.endswith("int8")
    assert load_encoder(f"{clip_folder}-int8").fingerprint == small.fingerprint


def test_int8_sees_nearly_what_the_model_sees(pair: tuple[Encoder, Encoder]) -> None:
    whole, small = pair
    pictures = mixed(whole, 40)
    one, other = whole.encode_prepared(pictures), small.encode_prepared(pictures)
    assert (one * other).sum(axis=1).min() > 0.97
    assert np.abs(one - other).max() > CLOSE
    assert np.allclose(np.linalg.norm(other, axis=1), 1, atol=CLOSE)


def test_an_int8_vector_does_not_depend_on_its_neighbours(pair: tuple[Encoder, Encoder]) -> None:
    _, small = pair
    pictures = mixed(small, 33)
    alone = np.concatenate([small.encode_prepared([one]) for one in pictures])
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(small.encode_prepared, [pictures] * 4))
    assert all(np.abs(rows - alone).max() < CLOSE for rows in found)


def test_words_are_read_in_full_by_an_int8_model(pair: tuple[Encoder, Encoder]) -> None:
    whole, small = pair
    assert np.array_equal(whole.encode_words(["a red coat"]), small.encode_words(["a red coat"]))


def test_a_folder_whose_name_ends_so_is_taken_for_itself(
    clip_folder: Path, tmp_path: Path, pair: tuple[Encoder, Encoder]
) -> None:
    folder = tmp_path / "mine-int8"
    folder.symlink_to(clip_folder)
    assert load_encoder(str(folder)).fingerprint == pair[0].fingerprint


@pytest.fixture
def no_nncf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda _: None)


def test_an_int8_model_made_on_another_processor_is_the_same(
    pair: tuple[Encoder, Encoder], clip_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    made = load_encoder(f"{clip_folder}-int8", towers=tmp_path)
    assert made.fingerprint == pair[1].fingerprint


def test_an_int8_model_that_is_made_needs_nothing_to_make_it(
    pair: tuple[Encoder, Encoder], clip_folder: Path, no_nncf: None
) -> None:
    assert load_encoder(f"{clip_folder}-int8").fingerprint == pair[1].fingerprint


def test_an_int8_model_that_cannot_be_made_says_what_to_install(
    towers: CompileOptions, no_nncf: None
) -> None:
    with pytest.raises(ModelUnavailable, match=r"nncf.*pip install 'lookalike\[int8\]'"):
        build(network(), towers, int8=True)


def test_int8_is_refused_where_openvino_is_missing(
    towers: CompileOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelUnavailable, match="openvino"):
        build(network(), towers, int8=True)


def test_torch_never_answers_for_int8() -> None:
    with pytest.raises(ModelUnavailable, match="torch alone"):
        build(network(), None, int8=True)


def test_int8_is_refused_where_a_setting_turns_openvino_off(
    pair: tuple[Encoder, Encoder], clip_folder: Path
) -> None:
    """Though it is in the cache: who turns it off may have a machine that it fails on."""
    with pytest.raises(ModelUnavailable, match=r"LOOKALIKE_OPENVINO is off.*turn it on, or"):
        load_encoder(f"{clip_folder}-int8", compiled=False)


def test_an_int8_tower_that_is_not_of_this_model_is_refused(
    towers: CompileOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = openvino_runtime.export(network(seed=2).module, SHAPE)
    monkeypatch.setattr("app.encoders.compiled_model.quantise", lambda *_: other)
    with pytest.raises(ModelUnavailable, match="not those of torch"):
        build(network(), towers, int8=True)


def test_quantising_that_fails_says_why(
    towers: CompileOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "_SCRIPT", Path("/no/such/script.py"))
    with pytest.raises(ModelUnavailable, match=r"quantising failed.*script\.py"):
        build(network(), towers, int8=True)


def test_quantising_that_does_not_end_says_so(
    towers: CompileOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeps.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(quantization, "_SCRIPT", tmp_path / "sleeps.py")
    monkeypatch.setattr(quantization, "_SECONDS", 0.1)
    with pytest.raises(ModelUnavailable, match=r"longer than 0\.1 s"):
        build(network(), towers, int8=True)


def test_the_embedded_encoder_in_int8_finds_what_it_finds_in_full() -> None:
    whole, small = load_encoder(EMBEDDED), load_encoder(f"{EMBEDDED}-int8")
    assert small.name == "embedded-int8" and small.fingerprint != whole.fingerprint
    with pytest.raises(NoWords):
        small.encode_words(["coat"])
    pictures = mixed(whole, 60)
    dimmed = [(picture * 0.6 + 20).astype(np.uint8)[:, ::-1].copy() for picture in pictures]
    found = [_recall(each, pictures, dimmed) for each in (whole, small)]
    assert found[0] > 0.9 and found[1] > found[0] - 0.05


def _recall(encoder: Encoder, pictures: list[np.ndarray], asked: list[np.ndarray]) -> float:
    similar = encoder.encode_prepared(asked) @ encoder.encode_prepared(pictures).T
    return float((similar.argmax(axis=1) == np.arange(len(asked))).mean())


# --- what others see ---


def test_status_says_what_encodes_pictures(app: App) -> None:
    model, cache = app.encoder(), CompiledCache(app.settings.tower_folder)
    cache.note(model.fingerprint, RuntimeState("torch", "ImportError: no openvino"))
    found = status(app.engine, app.files, app.settings).as_dict()["encoder"]
    assert found["value"] == "torch" and "no openvino" in found["advice"] and found["ok"]
    cache.note(model.fingerprint, RuntimeState("OpenVINO 2026.4.1"))
    found = status(app.engine, app.files, app.settings).as_dict()["encoder"]
    assert (found["value"], found["advice"]) == ("OpenVINO 2026.4.1", None)


def test_nobody_is_told_that_a_tower_was_made(tmp_path: Path) -> None:
    """The library would report to its maker: it must not even resolve a name."""
    code = f"""
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
from pathlib import Path
from app.encoders.loading import load_encoder
load_encoder("embedded", towers=Path({str(tmp_path)!r}))
print(seen, "openvino" in sys.modules)
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=REPO, env=environment,
    )  # fmt: skip
    assert done.stdout.strip() == "[] True"
    assert not (tmp_path / "intel").exists()


def test_drawn_pictures_are_the_same_each_time_and_differ_from_each_other() -> None:
    first, again = drawn(20, (40, 30)), drawn(20, (40, 30))
    assert first.shape == (20, 40, 30, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.array_equal(drawn(5, (40, 30), first=15), first[15:])
    assert len({picture.tobytes() for picture in first}) == 20


def test_the_bound_of_the_check_is_the_one_that_was_promised() -> None:
    assert ALIKE == 0.9999
