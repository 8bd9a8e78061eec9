"""Exports a torch network to OpenVINO, and runs it; the only module that imports OpenVINO."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.encoders import torch_threads
from app.encoders.compiled_cache import OpenVinoGraph
from app.types import Vectors

if TYPE_CHECKING:
    import torch
    from torch import nn


class ConversionFailed(RuntimeError):
    """OpenVINO cannot convert the network."""


def load_library() -> Any:
    """The module openvino. Raises ImportError when it is not installed.

    OpenVINO reports imports and conversions to its makers over the network unless its telemetry
    package is missing. The user was not asked for consent, so it is made to seem missing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def version() -> str:
    """Version of OpenVINO, such as '2026.4.1'. Raises ImportError."""
    return str(load_library().__version__).split("-")[0]


def export(network: nn.Module, shape: tuple[int, int]) -> OpenVinoGraph:
    """The graph of a network whose input is uint8 (n, *shape, 3), for every n.

    Raises ConversionFailed, and any exception of torch's tracing.
    """
    import torch  # running a graph needs it not

    return export_as(network, torch.zeros(2, *shape, 3, dtype=torch.uint8), (-1, *shape, 3))


def export_as(network: nn.Module, example: torch.Tensor, shape: tuple[int, ...]) -> OpenVinoGraph:
    """The graph of a network whose input is like `example`, of a `shape` in which -1 is any length.

    Raises ConversionFailed, and any exception of torch's tracing.
    """
    import torch

    openvino = load_library()
    rows = openvino.PartialShape(list(shape))
    with _logging_preserved(), torch.no_grad():
        try:
            model = openvino.convert_model(_traced(network, example), input=[rows])
        except _conversion_failures() as exc:
            raise ConversionFailed(str(exc)) from exc
    _set_names(model)
    return serialize(model)


def _traced(network: nn.Module, example: torch.Tensor) -> Any:
    """The network as `convert_model` reads it.

    torch's own check traces it again, which takes half of an export: the vectors of the compiled
    model are compared anyway.
    """
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    return TorchScriptPythonDecoder(
        network, example_input=example, trace_kwargs={"check_trace": False}
    )


def _set_names(model: Any) -> None:
    """Name nodes by their position.

    Names are part of the fingerprint of an int8 model, and by default they contain counters that
    depend on what the process converted before. For the same reason these names never change.
    """
    model.set_friendly_name("tower")
    for place, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{place}")


@contextmanager
def _logging_preserved() -> Iterator[None]:
    """Restore the logging that a conversion changes: it silences the whole process.

    The tracer's warnings are not shown, because the compiled model is verified anyway.
    """
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def _conversion_failures() -> tuple[type[Exception], ...]:
    """OpenVINO's conversion errors, which have no common base class."""
    frontend = load_library().frontend
    return (
        frontend.GeneralFailure, frontend.InitializationFailure, frontend.NotImplementedFailure,
        frontend.OpConversionFailure, frontend.OpValidationFailure,
    )  # fmt: skip


def serialize(model: Any) -> OpenVinoGraph:
    """An OpenVINO model as bytes, with weights in full precision."""
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        layers = Path(folder) / "tower.xml"
        load_library().save_model(model, layers, compress_to_fp16=False)
        return OpenVinoGraph(layers.read_bytes(), layers.with_suffix(".bin").read_bytes())


class OpenVinoModel:
    """A graph compiled for this processor. Safe to call from several threads."""

    def __init__(self, graph: OpenVinoGraph, streams: int = 1) -> None:
        """`streams` is how many batches run at once, each on its share of the cores: more pictures
        a second, because threads wait less for each other, but a single batch takes longer.

        Raises RuntimeError when OpenVINO cannot compile the graph.
        """
        openvino = load_library()
        core = openvino.Core()
        settings = {
            # By default it uses 16-bit numbers on processors that have them.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": torch_threads.thread_count(),
            # With pinning, two processes would share one core and leave another idle.
            "ENABLE_CPU_PINNING": False,
        }
        model = core.read_model(graph.layers, graph.weights)
        self._model = core.compile_model(model, "CPU", settings)
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def __call__(self, pixels: NDArray[Any]) -> Vectors:
        """The output of one input, as the network gives it: float32. Concurrent calls use own
        requests."""
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._model.create_infer_request()
        rows: Vectors = request.infer([np.ascontiguousarray(pixels)], share_inputs=True)[0]
        self._idle.put(request)
        return rows
