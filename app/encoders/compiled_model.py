"""Compiled models: exports a picture network to OpenVINO, verifies it, and falls back to torch.

The network is exported once, into a cache. Each time it is loaded, its vectors of synthetic
pictures are compared with torch's. If anything fails, torch encodes, and the reason is recorded.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.jit._trace import TracingCheckError

from app.encoders import openvino_runtime
from app.encoders.compiled_cache import (
    CompiledCache,
    CompileOptions,
    OpenVinoGraph,
    RuntimeState,
)
from app.encoders.compiled_verification import (
    MIN_COSINE,
    PROBE_COUNT,
    OutputMismatch,
    RunFunction,
    verify,
)
from app.encoders.probe_images import probe_images
from app.encoders.quantization import RECIPE, calibration_pictures, quantize
from app.errors import ModelUnavailable
from app.types import Vectors

MIN_COSINE_INT8 = 0.9
"""The same for an int8 model, on photos: below this it is not a version of this network."""

_MAX_MESSAGE = 300
"""Maximum characters that are quoted of a library's message; the end tells most."""

# Observed for a library that is missing, too old or too new, or that cannot run a network.
_FAILURES = (
    ImportError, OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
    AssertionError, TracingCheckError,
)  # fmt: skip

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """A function from pixels to vectors, what runs it, and the fingerprint of its model.

    `graph` is the key of its graph in the cache, and `probe_vectors` are torch's vectors of the
    probe images, with which it was compared; None unless OpenVINO runs the network as it is.
    """

    run: RunFunction
    state: RuntimeState
    fingerprint: str
    graph: str | None = None
    probe_vectors: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A torch network from uint8 (n, *shape, 3) to float32 unit rows, and its fingerprint."""

    module: nn.Module
    shape: tuple[int, int]
    fingerprint: str

    def __call__(self, pixels: NDArray[np.uint8]) -> Vectors:
        """The vectors of pixels, computed by torch."""
        with torch.inference_mode():
            rows: Vectors = self.module(torch.from_numpy(pixels)).numpy()
        return rows


def compile_network(
    network: Network, options: CompileOptions | None, *, int8: bool = False
) -> CompiledModel:
    """The network compiled by OpenVINO; with `int8`, quantized to 8 bits: another model.

    Without `options` torch runs it, and nothing is written. Where OpenVINO cannot be used, torch
    runs it too; an `int8` model cannot run in torch and raises ModelUnavailable.
    """
    off = "OpenVINO is off" if options is None else options.off
    if int8 and off:
        raise ModelUnavailable(
            _refusal(f"torch alone does not run it, and {off}", "turn it on, or ")
        )
    if options is None:
        return CompiledModel(network, RuntimeState("torch"), network.fingerprint)
    model = _compile_int8(network, options) if int8 else _compile(network, options)
    options.cache.save_state(model.fingerprint, model.state)
    return model


def _compile(network: Network, options: CompileOptions) -> CompiledModel:
    try:
        if options.off:
            return CompiledModel(network, RuntimeState("torch", options.off), network.fingerprint)
        run, expected = _load_cached(network, options) or _export(network, options)
        state = RuntimeState(f"OpenVINO {openvino_runtime.version()}")
        return CompiledModel(run, state, network.fingerprint, _cache_key(network), expected)
    except _FAILURES as exc:
        state = RuntimeState("torch", _brief(exc))
        _log.warning("pictures are encoded by %s", state)
        return CompiledModel(network, state, network.fingerprint)


def _compile_int8(network: Network, options: CompileOptions) -> CompiledModel:
    try:
        graph = _quantized(network, options.cache)
        run = openvino_runtime.OpenVinoModel(graph, options.streams)
        pictures = calibration_pictures(network.shape)[:PROBE_COUNT]
        verify(run, network(pictures), MIN_COSINE_INT8, pictures)
        state = RuntimeState(f"OpenVINO {openvino_runtime.version()}, int8")
    except _FAILURES as exc:
        missing = isinstance(exc, ImportError)
        way_out = "install it with `pip install 'lookalike[int8]'`, or " if missing else ""
        raise ModelUnavailable(_refusal(_brief(exc), way_out)) from exc
    identity = f"{network.fingerprint} {RECIPE} {graph.sha256}"
    return CompiledModel(run, state, hashlib.sha256(identity.encode()).hexdigest())


def _refusal(reason: str, way_out: str = "") -> str:
    return f"The int8 model cannot be used ({reason}); {way_out}take the model without -int8."


def _load_cached(network: Network, options: CompileOptions) -> tuple[RunFunction, Vectors] | None:
    """The compiled model in the cache; None if there is none or it cannot be used."""
    graph = options.cache.read(_cache_key(network))
    try:
        return None if graph is None else _load(network, graph, options.streams)
    except _FAILURES as exc:
        folder = options.cache.folder
        _log.warning("The compiled model in %s is built again: %s", folder, _brief(exc))
        return None


def _export(network: Network, options: CompileOptions) -> tuple[RunFunction, Vectors]:
    graph = openvino_runtime.export(network.module, network.shape)
    verified = _load(network, graph, options.streams)
    options.cache.write(_cache_key(network), graph)
    return verified


def _quantized(network: Network, cache: CompiledCache) -> OpenVinoGraph:
    key = f"{network.fingerprint} {network.shape} int8 {RECIPE}"
    graph = cache.read(key)
    if graph is None:
        graph = quantize(openvino_runtime.export(network.module, network.shape), network.shape)
        cache.write(key, graph)
    return graph


def _cache_key(network: Network) -> str:
    """Everything that a graph depends on."""
    library = openvino_runtime.version()
    return f"{network.fingerprint} {network.shape} {library} torch {torch.__version__}"


def _load(network: Network, graph: OpenVinoGraph, streams: int) -> tuple[RunFunction, Vectors]:
    """The compiled model, verified, and torch's vectors of the probe images."""
    run = openvino_runtime.OpenVinoModel(graph, streams)
    pictures = probe_images(PROBE_COUNT, network.shape)
    expected = network(pictures)
    verify(run, expected, MIN_COSINE, pictures)
    return run, expected


def _brief(exc: BaseException) -> str:
    """The message of an exception in one line, shortened in its middle."""
    text = " ".join(str(exc).split())
    if len(text) > _MAX_MESSAGE:
        text = f"{text[: _MAX_MESSAGE // 3]} … {text[-_MAX_MESSAGE * 2 // 3 :]}"
    return text if isinstance(exc, OutputMismatch) else f"{type(exc).__name__}: {text}"
