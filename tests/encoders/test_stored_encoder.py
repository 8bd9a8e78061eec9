"""The embedded encoder from its compiled graph alone: the same vectors, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.encoders import embedded_versions, stored_encoder
from app.encoders.base import EMBEDDED, Encoder
from app.encoders.compiled_cache import CompiledCache, CompileOptions
from app.encoders.compiled_verification import MIN_COSINE, OutputMismatch, verify
from app.encoders.feature_map import FeatureMap
from app.encoders.loading import load_encoder
from app.encoders.probe_images import probe_images
from app.encoders.square_pictures import SquarePictureEncoder
from app.encoders.stored_encoder import StoredEncoder
from support.paths import REPO

FORMER = "1-848d92bb4f69"
"""A revision of version 1, the smaller network."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which a process has recorded the encoder."""
    folder = tmp_path_factory.mktemp("cache")
    assert isinstance(load(folder), StoredEncoder), "torch is given up after it was compared"
    return folder


@pytest.fixture(scope="module")
def by_torch() -> Encoder:
    return load_encoder(EMBEDDED, revision=FORMER, compiled=False)


def load(folder: Path, **options: bool) -> Encoder:
    return load_encoder(EMBEDDED, revision=FORMER, compiled_cache=folder, **options)


def pictures(count: int = 6) -> list[Image.Image]:
    return [Image.fromarray(each) for each in probe_images(count, (300, 200), first=100)]


def test_it_is_the_same_model_with_the_same_vectors(cache: Path, by_torch: Encoder) -> None:
    stored = load(cache)
    assert isinstance(stored, StoredEncoder)
    for name in ("name", "revision", "dim", "fingerprint", "input_side", "reads_words"):
        assert getattr(stored, name) == getattr(by_torch, name), name
    assert stored.runtime.startswith("OpenVINO") and stored.maps_regions
    expected = by_torch.encode_pictures(pictures())
    assert np.abs(stored.encode_pictures(pictures()) - expected).max() < 1e-5


@pytest.mark.parametrize("size", [(200, 300), (640, 480), (30, 900)])
def test_regions_have_the_vectors_of_torch(
    cache: Path, by_torch: Encoder, size: tuple[int, int]
) -> None:
    stored, picture = load(cache), pictures(1)[0].resize(size)
    boxes = [(0.0, 0.0, 0.5, 0.5), (0.2, 0.1, 0.9, 1.0)]
    windows = stored.pool_windows(stored.encode_map(picture), boxes)
    expected = by_torch.pool_windows(by_torch.encode_map(picture), boxes)
    assert np.abs(windows - expected).max() < 1e-5


def test_torch_is_not_imported(cache: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from PIL import Image\n"
        "from app.encoders.loading import load_encoder\n"
        f"encoder = load_encoder('embedded', revision={FORMER!r}, compiled_cache=Path(sys.argv[1]))"
        "\npicture = Image.new('RGB', (40, 60), 'red')\n"
        "rows = encoder.encode_pictures([picture])\n"
        "found = encoder.pool_windows(encoder.encode_map(picture), [(0, 0, 0.5, 1)])\n"
        "print(rows.shape, found.shape, 'torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(cache)],
        cwd=REPO, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout == "(1, 512) (1, 512) False\n" and ran.stderr == ""


def test_other_weights_and_libraries_are_verified_anew(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = embedded_versions.weight_files("1")
    changed = tmp_path / files[-1].name
    changed.write_bytes(files[-1].read_bytes()[:-4] + b"\0\0\0\0")
    options = CompileOptions(CompiledCache(cache))

    def stored(paths: list[Path]) -> StoredEncoder | None:
        return stored_encoder.load_stored("1", paths, options, lambda: load(cache))

    assert stored(files) is not None
    assert stored([*files[:-1], changed]) is None
    assert stored([*files[:-1], tmp_path / "missing"]) is None
    monkeypatch.setattr(stored_encoder, "LIBRARIES", ("numpy",))
    assert stored(files) is None


def test_openvino_that_is_off_stays_off_and_status_names_what_runs_last(cache: Path) -> None:
    off = load(cache, compiled=False)
    known = CompiledCache(cache)
    assert off.runtime.startswith("torch")
    assert str(known.load_state(off.fingerprint)).startswith("torch")
    assert str(known.load_state(load(cache).fingerprint)).startswith("OpenVINO")


def damaged(cache: Path, folder: Path, what: str) -> Path:
    """A copy of the cache in which something is not as it was."""
    for file in cache.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    [record] = folder.glob("*.verified.json")
    known, key = CompiledCache(folder), json.loads(record.read_text().splitlines()[1])["key"]
    verified = known.load_verified(key)
    assert verified is not None
    if what == "not JSON":
        record.write_bytes(b"{")
    elif what == "another fingerprint":
        own = b'"fingerprint": "' + verified.fingerprint[:12].encode()
        changed = record.read_bytes().replace(own, b'"fingerprint": "000000000000')
        record.write_bytes(changed)
    elif what.endswith(" vectors"):
        name = what.split()[0]
        turned = {name: np.roll(verified.vectors[name], 1, axis=0)}
        known.save_verified(key, replace(verified, vectors={**verified.vectors, **turned}))
    else:
        graph = known.path(verified.graphs[what.split()[0]])
        if what.endswith("cut"):
            graph.write_bytes(graph.read_bytes()[:-100])
        else:
            graph.unlink()
    return folder


@pytest.mark.parametrize("what", [
    "encode vectors", "encode cut", "encode missing", "windows missing", "not JSON",
    "another fingerprint",
])  # fmt: skip
def test_a_record_that_does_not_hold_is_not_used(cache: Path, tmp_path: Path, what: str) -> None:
    files, refused = embedded_versions.weight_files("1"), []
    options = CompileOptions(CompiledCache(damaged(cache, tmp_path, what)))
    assert stored_encoder.load_stored("1", files, options, lambda: refused.append(1)) is None  # type: ignore[arg-type, func-returns-value]
    if what in {"encode cut", "not JSON"}:  # each takes a second
        assert isinstance(load(tmp_path), StoredEncoder), "the graphs are built and recorded again"


@pytest.mark.parametrize("what", ["windows vectors", "map cut"])
def test_graphs_for_regions_that_do_not_hold_are_replaced_by_torch(
    cache: Path, tmp_path: Path, by_torch: Encoder, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    stored, [picture] = load(damaged(cache, tmp_path, what)), pictures(1)
    assert isinstance(stored, StoredEncoder)
    boxes = [(0.0, 0.0, 0.5, 0.5)]
    windows = stored.pool_windows(stored.encode_map(picture), boxes)
    expected = by_torch.pool_windows(by_torch.encode_map(picture), boxes)
    assert np.abs(windows - expected).max() < 1e-6
    assert "feature maps are computed by torch" in caplog.text
    if what == "map cut":  # the damaged file is gone, and the next process makes it again
        caplog.clear()
        again = load(tmp_path)
        again.encode_map(picture)
        assert isinstance(again, StoredEncoder) and not caplog.text


def test_threads_that_need_feature_maps_first_open_the_graphs_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = load(cache)
    assert isinstance(stored, StoredEncoder)
    opened, open_graphs = [], stored._open_graphs

    def counted() -> SquarePictureEncoder:
        opened.append(1)
        return open_graphs()

    monkeypatch.setattr(stored, "_open_graphs", counted)
    start = threading.Barrier(4)

    def first_map() -> FeatureMap:
        start.wait()
        return stored.encode_map(pictures(1)[0], side=128)

    with ThreadPoolExecutor(4) as pool:
        maps = [each.result() for each in [pool.submit(first_map) for _ in range(4)]]
    assert opened == [1] and all(np.array_equal(each, maps[0]) for each in maps)


def test_without_a_folder_to_write_to_no_other_graphs_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(stored_encoder, "_map_graphs", made.append)
    (tmp_path / "file").touch()
    encoder = load(tmp_path / "file" / "cache")
    assert encoder.runtime.startswith("OpenVINO") and not made


def test_vectors_that_are_no_numbers_are_not_those_of_torch() -> None:
    rows = np.eye(4, 8, dtype=np.float32)
    squares = np.zeros((4, 2, 2, 3), np.uint8)
    with pytest.raises(OutputMismatch):
        verify(lambda some: rows[: len(some)], np.full_like(rows, np.nan), MIN_COSINE, squares)
