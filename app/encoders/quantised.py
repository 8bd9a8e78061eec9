"""A tower in 8-bit numbers: made by NNCF in a process of its own, from drawn pictures."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from app.encoders.drawn import drawn
from app.encoders.tower_cache import Graph

CALIBRATION = 100
"""Drawn pictures from which the ranges of the numbers are taken."""

RECIPE = f"nncf 1, {CALIBRATION} drawn"
"""Changed by hand whenever the same network and library would give another int8 tower."""

_FIRST = 1000  # so that none is among those a tower is compared on
_SECONDS = 1800.0
_SCRIPT = Path(__file__).with_name("quantise.py")


class Unquantisable(RuntimeError):
    """The library could not make an int8 tower of this network."""


def quantise(graph: Graph, shape: tuple[int, int]) -> Graph:
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
        np.save(folder / "pictures.npy", drawn(CALIBRATION, shape, first=_FIRST))
        _run(folder)
        made = folder / "int8.xml"
        return Graph(made.read_bytes(), made.with_suffix(".bin").read_bytes())


def _run(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(_SCRIPT), str(folder)],
        capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, "NNCF_CI": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Unquantisable(f"quantising failed: {last}")
