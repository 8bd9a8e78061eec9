"""Quantizes a graph to 8 bits with NNCF, in a process of its own, using pictures shipped here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.encoders.compiled_cache import OpenVinoGraph
from app.images.decoding import decode

CALIBRATION_SHEET = Path(__file__).with_name("calibration.jpg")
"""Drawn products, side by side; made by `ingest/demo/calibration_sheet.py`."""

COLUMNS, ROWS = 6, 6
"""Pictures on the sheet."""

TILE_SIDE = 224
"""Side of each picture on the sheet, in pixels."""

RECIPE = "nncf 1"
"""Changed by hand whenever the same network and library would give another int8 model."""

_QUIET = {"NNCF_CI": "1", "PYTHONWARNINGS": "ignore"}

# Wider registers add in another order, which would change the ranges and with them the model.
# AVX2 is available on all but very old processors.
_SAME_ARITHMETIC = {"ONEDNN_MAX_CPU_ISA": "AVX2"}

_TIMEOUT_S = 1800.0
_SCRIPT = Path(__file__).with_name("quantize_script.py")


class QuantizationFailed(RuntimeError):
    """NNCF could not quantize the network."""


def calibration_pictures(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The pictures that the ranges of activations are taken from, uint8 (36, *shape, 3)."""
    sheet, (height, width) = decode(CALIBRATION_SHEET.read_bytes()), shape
    corners = [(x * TILE_SIDE, y * TILE_SIDE) for y in range(ROWS) for x in range(COLUMNS)]
    tiles = [sheet.crop((x, y, x + TILE_SIDE, y + TILE_SIDE)) for x, y in corners]
    return np.stack(
        [np.asarray(tile.resize((width, height), Image.Resampling.BICUBIC)) for tile in tiles]
    )


def quantize(graph: OpenVinoGraph, shape: tuple[int, int]) -> OpenVinoGraph:
    """The int8 graph of a float32 graph whose input is uint8 (n, *shape, 3).

    NNCF runs in a process of its own, because it prints and changes the configuration of logging.
    Raises ImportError when it is not installed, and QuantizationFailed.
    """
    if importlib.util.find_spec("nncf") is None:
        raise ImportError("the package nncf is not installed")
    with tempfile.TemporaryDirectory(prefix="lookalike-") as name:
        folder = Path(name)
        (folder / "tower.xml").write_bytes(graph.layers)
        (folder / "tower.bin").write_bytes(graph.weights)
        np.save(folder / "pictures.npy", calibration_pictures(shape))
        _run_script(folder)
        layers = folder / "int8.xml"
        return OpenVinoGraph(layers.read_bytes(), layers.with_suffix(".bin").read_bytes())


def _run_script(folder: Path) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_SCRIPT), str(folder)],
            capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL, env=os.environ | _QUIET | _SAME_ARITHMETIC,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise QuantizationFailed(f"quantizing took longer than {_TIMEOUT_S:g} s") from exc
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise QuantizationFailed(f"quantizing failed: {last}")
