"""Towers: an encoder's way from pixels to a vector, run by OpenVINO where that agrees with torch.

A tower is exported once from the loaded network into a cache, and compared with the network on
drawn pictures each time before it is used. Whatever goes wrong, torch answers, and it is said why.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.jit._trace import TracingCheckError

from app.encoders import openvino_runtime
from app.encoders.compiled_cache import CompiledCache, OpenVinoGraph, RuntimeState
from app.encoders.probe_images import drawn
from app.encoders.quantization import RECIPE, calibration, quantise
from app.errors import ModelUnavailable
from app.types import Vectors

ALIKE = 0.9999
"""Least cosine of a tower's vectors and torch's on every drawn picture; rounding takes 1e-6."""

ALIKE_INT8 = 0.9
"""The same for an int8 tower on photos: below this it is no tower of this network."""

PROBES = 4
_SAID = 300
"""Characters of a library's message that are repeated; what it is about stands at its end."""

# What a library that is missing, too old, too new or at odds with a network has been seen to raise.
_FAILED = (
    ImportError, OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
    AssertionError, TracingCheckError,
)  # fmt: skip

_log = logging.getLogger(__name__)

Run = Callable[[NDArray[np.uint8]], Vectors]
"""uint8 (n, height, width, 3) to float32 unit rows (n, dim), from any number of threads."""


class OutputMismatch(ValueError):
    """The tower does not give torch's vectors."""


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """Where towers are kept; `off` is the reason if none is to be compiled.

    `streams` is how many batches a tower runs at once, each on its share of the cores.
    """

    cache: CompiledCache
    off: str | None = None
    streams: int = 1


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """A tower and what runs it; `fingerprint` is that of its model."""

    run: Run
    state: RuntimeState
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Network:
    """A network in torch from uint8 (n, *shape, 3) to float32 unit rows, and its fingerprint."""

    module: nn.Module
    shape: tuple[int, int]
    fingerprint: str

    def __call__(self, pixels: NDArray[np.uint8]) -> Vectors:
        """What torch makes of pixels."""
        with torch.inference_mode():
            rows: Vectors = self.module(torch.from_numpy(pixels)).numpy()
        return rows


def build(network: Network, towers: CompileOptions | None, *, int8: bool = False) -> CompiledModel:
    """The network's tower, or with `int8` that of its sibling in 8-bit numbers, another model.

    Without `towers` nothing is compiled or written. Raises ModelUnavailable for `int8` where that
    is off, or can neither be read from the cache nor made; otherwise torch answers then.
    """
    off = "OpenVINO is off" if towers is None else towers.off
    if int8 and off:
        why = f"torch alone does not run it, and {off}"
        raise ModelUnavailable(_refusal(why, "turn it on, or "))
    if towers is None:
        return CompiledModel(network, RuntimeState("torch"), network.fingerprint)
    tower = _int8(network, towers) if int8 else _fast(network, towers)
    towers.cache.note(tower.fingerprint, tower.state)
    return tower


def _fast(network: Network, towers: CompileOptions) -> CompiledModel:
    try:
        if towers.off:
            return CompiledModel(network, RuntimeState("torch", towers.off), network.fingerprint)
        run = _kept(network, towers) or _exported(network, towers)
        return CompiledModel(
            run, RuntimeState(f"OpenVINO {openvino_runtime.version()}"), network.fingerprint
        )
    except _FAILED as exc:
        state = RuntimeState("torch", _brief(exc))
        _log.warning("pictures are encoded by %s", state)
        return CompiledModel(network, state, network.fingerprint)


def _int8(network: Network, towers: CompileOptions) -> CompiledModel:
    try:
        graph, probes = _quantised(network, towers.cache), calibration(network.shape)[:PROBES]
        run = _checked(
            network, openvino_runtime.OpenVinoModel(graph, towers.streams), ALIKE_INT8, probes
        )
        state = RuntimeState(f"OpenVINO {openvino_runtime.version()}, int8")
    except _FAILED as exc:
        way = "install it with `pip install 'lookalike[int8]'`, or "
        way = way if isinstance(exc, ImportError) else ""
        raise ModelUnavailable(_refusal(_brief(exc), way)) from exc
    told = f"{network.fingerprint} {RECIPE} {graph.sha256}"
    return CompiledModel(run, state, hashlib.sha256(told.encode()).hexdigest())


def _refusal(why: str, way: str = "") -> str:
    return f"The int8 model cannot be used ({why}); {way}take the model without -int8."


def _kept(network: Network, towers: CompileOptions) -> Run | None:
    """The tower in the cache; None if there is none, or it is another's."""
    graph = towers.cache.read(_key(network))
    try:
        return None if graph is None else _equal(network, graph, towers.streams)
    except _FAILED as exc:
        _log.warning("The tower in %s is made again: %s", towers.cache.folder, _brief(exc))
        return None


def _exported(network: Network, towers: CompileOptions) -> Run:
    graph = openvino_runtime.export(network.module, network.shape)
    run = _equal(network, graph, towers.streams)
    towers.cache.write(_key(network), graph)
    return run


def _quantised(network: Network, cache: CompiledCache) -> OpenVinoGraph:
    key = f"{network.fingerprint} {network.shape} int8 {RECIPE}"
    graph = cache.read(key)
    if graph is None:
        graph = quantise(openvino_runtime.export(network.module, network.shape), network.shape)
        cache.write(key, graph)
    return graph


def _key(network: Network) -> str:
    """What a tower is made from: another of these, another tower."""
    library = openvino_runtime.version()
    return f"{network.fingerprint} {network.shape} {library} torch {torch.__version__}"


def _equal(network: Network, graph: OpenVinoGraph, streams: int) -> Run:
    run = openvino_runtime.OpenVinoModel(graph, streams)
    return _checked(network, run, ALIKE, drawn(PROBES, network.shape))


def _checked(network: Network, run: Run, alike: float, probes: NDArray[np.uint8]) -> Run:
    """The same. Raises Disagrees where its vectors are not torch's."""
    expected = network(probes)
    # Two batches: a length that was traced into the graph shows.
    found = np.concatenate([run(probes[:1]), run(probes[1:])])
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise OutputMismatch(f"it gives {found.shape} numbers, or some that are not finite")
    cosine = float((found * expected).sum(axis=1).min())
    if cosine < alike or np.abs(np.linalg.norm(found, axis=1) - 1).max() > 1e-3:
        raise OutputMismatch(f"its vectors are not those of torch (cosine {cosine:.5f})")
    return run


def _brief(exc: BaseException) -> str:
    text = " ".join(str(exc).split())
    text = text if len(text) <= _SAID else f"{text[: _SAID // 3]} … {text[-_SAID * 2 // 3 :]}"
    return text if isinstance(exc, OutputMismatch) else f"{type(exc).__name__}: {text}"
