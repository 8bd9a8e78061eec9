"""The embedded encoder from its compiled graph alone: the same vectors, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.encoders import embedded_versions, stored_encoder
from app.encoders.base import EMBEDDED, Encoder
from app.encoders.compiled_cache import CompiledCache, CompileOptions
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
    first = load(folder)
    assert not isinstance(first, StoredEncoder) and first.runtime.startswith("OpenVINO")
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


def test_regions_are_mapped_by_the_network(cache: Path, by_torch: Encoder) -> None:
    stored, [picture] = load(cache), pictures(1)
    boxes = [(0.0, 0.0, 0.5, 0.5), (0.2, 0.1, 0.9, 1.0)]
    windows = stored.pool_windows(stored.encode_map(picture), boxes)
    expected = by_torch.pool_windows(by_torch.encode_map(picture), boxes)
    assert np.abs(windows - expected).max() < 1e-6


def test_torch_is_not_imported(cache: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from PIL import Image\n"
        "from app.encoders.loading import load_encoder\n"
        f"encoder = load_encoder('embedded', revision={FORMER!r}, compiled_cache=Path(sys.argv[1]))"
        "\nrows = encoder.encode_pictures([Image.new('RGB', (40, 60), 'red')])\n"
        "print(rows.shape, 'torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(cache)],
        cwd=REPO, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout == "(1, 512) False\n" and ran.stderr == ""


def test_other_weights_and_libraries_are_verified_anew(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = embedded_versions.weight_files("1")
    changed = tmp_path / files[-1].name
    changed.write_bytes(files[-1].read_bytes()[:-4] + b"\0\0\0\0")
    options = CompileOptions(CompiledCache(cache))

    def stored(paths: list[Path]) -> StoredEncoder | None:
        return stored_encoder.load_stored("1", 256, paths, options, lambda: load(cache))

    assert stored(files) is not None
    assert stored([*files[:-1], changed]) is None
    assert stored([*files[:-1], tmp_path / "missing"]) is None
    monkeypatch.setattr(stored_encoder, "LIBRARIES", ("numpy",))
    assert stored(files) is None


def test_openvino_that_is_off_stays_off(cache: Path) -> None:
    assert load(cache, compiled=False).runtime.startswith("torch")


@pytest.mark.parametrize("damage", ["vectors", "graph", "not JSON", "no graph"])
def test_a_record_that_does_not_hold_is_not_used(cache: Path, tmp_path: Path, damage: str) -> None:
    for file in cache.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    [record] = tmp_path.glob("*.verified.json")
    [graph] = tmp_path.glob("*.tower")
    if damage == "vectors":
        known = CompiledCache(tmp_path)
        key = json.loads(record.read_text())["key"]
        verified = known.load_verified(key)
        assert verified is not None
        turned = np.roll(verified.probe_vectors, 1, axis=0)
        known.save_verified(key, replace(verified, probe_vectors=turned))
    elif damage == "graph":
        graph.write_bytes(graph.read_bytes()[:-100])
    elif damage == "not JSON":
        record.write_bytes(b"{")
    else:
        graph.unlink()
    encoder = load(tmp_path)
    assert not isinstance(encoder, StoredEncoder) and isinstance(encoder, SquarePictureEncoder)
    assert isinstance(load(tmp_path), StoredEncoder), "the graph is built and recorded again"
