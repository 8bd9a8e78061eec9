"""A tower in 8-bit numbers: made by NNCF in a process of its own, from pictures that we ship."""

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

SHEET = Path(__file__).with_name("calibration.jpg")
"""A grid of drawn products; `python -m ingest.demo.calibration_sheet` makes it."""

SIDES = (6, 6)
"""Pictures across and down."""

TILE = 224
"""Side of each in pixels."""

RECIPE = "nncf 1"
"""Changed by hand whenever the same network and library would give another int8 tower."""

_QUIETLY = {"NNCF_CI": "1", "PYTHONWARNINGS": "ignore"}

# Wider registers add in another order, and the ranges, and with them the model, would be others:
# so as all but very old processors can.
_ALIKE = {"ONEDNN_MAX_CPU_ISA": "AVX2"}

_SECONDS = 1800.0
_SCRIPT = Path(__file__).with_name("quantize_script.py")


def calibration(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The pictures that ranges are taken from, uint8 (36, *shape, 3)."""
    sheet, (height, width) = decode(SHEET.read_bytes()), shape
    corners = [(x * TILE, y * TILE) for y in range(SIDES[1]) for x in range(SIDES[0])]
    tiles = [sheet.crop((x, y, x + TILE, y + TILE)) for x, y in corners]
    return np.stack(
        [np.asarray(t.resize((width, height), Image.Resampling.BICUBIC)) for t in tiles]
    )


class Unquantisable(RuntimeError):
    """The library could not make an int8 tower of this network."""


def quantise(graph: OpenVinoGraph, shape: tuple[int, int]) -> OpenVinoGraph:
    """The int8 graph of a 32-bit one whose input is uint8 (n, *shape, 3).

    In a process of its own, because the library prints, and changes how a program logs. Raises
    ImportError when it is not installed, and Unquantisable.
    """
    if importlib.util.find_spec("nncf") is None:
        raise ImportError("the package nncf is not installed")
    with tempfile.TemporaryDirectory(prefix="lookalike-") as name:
        folder = Path(name)
        (folder / "tower.xml").write_bytes(graph.layers)
        (folder / "tower.bin").write_bytes(graph.weights)
        np.save(folder / "pictures.npy", calibration(shape))
        _run(folder)
        made = folder / "int8.xml"
        return OpenVinoGraph(made.read_bytes(), made.with_suffix(".bin").read_bytes())


def _run(folder: Path) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_SCRIPT), str(folder)],
            capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False,
            stdin=subprocess.DEVNULL, env=os.environ | _QUIETLY | _ALIKE,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise Unquantisable(f"quantising took longer than {_SECONDS:g} s") from exc
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Unquantisable(f"quantising failed: {last}")
