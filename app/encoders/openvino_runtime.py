"""The only module that imports OpenVINO: a torch network exported, compiled and run by it."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.encoders.compiled_cache import OpenVinoGraph
from app.types import Vectors


class Unconvertible(RuntimeError):
    """The library cannot run what the network does."""


def library() -> Any:
    """OpenVINO. Raises ImportError when it is not installed.

    Its makers count imports and conversions over the network unless the package that does so is
    missing, so that is what it sees: nobody asked the user.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def version() -> str:
    """Of the library, such as '2026.4.1'. Raises ImportError."""
    return str(library().__version__).split("-")[0]


def export(network: nn.Module, shape: tuple[int, int]) -> OpenVinoGraph:
    """The graph of a network from uint8 (n, *shape, 3), for every n.

    Raises what tracing raises, and Unconvertible.
    """
    openvino = library()
    example = torch.zeros(2, *shape, 3, dtype=torch.uint8)
    rows = openvino.PartialShape([-1, *shape, 3])
    with _undisturbed(), torch.no_grad():
        try:
            model = openvino.convert_model(network, example_input=example, input=[rows])
        except _conversion_failures() as exc:
            raise Unconvertible(str(exc)) from exc
    _name(model)
    return written(model)


def _name(model: Any) -> None:
    """By place: left alone, names count what the process made before, and are part of what tells
    one int8 model from another."""
    model.set_friendly_name("tower")
    for place, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{place}")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What is logged and warned of stays as it was: converting silences everybody's messages.

    The tracer's warnings are not shown: what it may get wrong is looked for later.
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
    """The library's own, which are kin of no common exception."""
    frontend = library().frontend
    return (
        frontend.GeneralFailure, frontend.InitializationFailure, frontend.NotImplementedFailure,
        frontend.OpConversionFailure, frontend.OpValidationFailure,
    )  # fmt: skip


def written(model: Any) -> OpenVinoGraph:
    """A model of the library as bytes, with all digits of its weights."""
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        layers = Path(folder) / "tower.xml"
        library().save_model(model, layers, compress_to_fp16=False)
        return OpenVinoGraph(layers.read_bytes(), layers.with_suffix(".bin").read_bytes())


class OpenVinoModel:
    """A graph ready to run on this processor; called from several threads at once."""

    def __init__(self, graph: OpenVinoGraph, streams: int = 1) -> None:
        """`streams` is how many batches run at once, each on its share of the cores: less work in
        all, and no thread waits for another at each layer, but one batch alone takes longer.

        Raises RuntimeError when the library cannot compile it.
        """
        openvino = library()
        core = openvino.Core()
        settings = {
            # Left to itself it takes 16-bit numbers where the processor has them.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Pinned, two processes would share one core and leave another idle.
            "ENABLE_CPU_PINNING": False,
        }
        model = core.read_model(graph.layers, graph.weights)
        self._model = core.compile_model(model, "CPU", settings)
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def __call__(self, pixels: NDArray[np.uint8]) -> Vectors:
        """uint8 (n, height, width, 3) to float32 (n, dim). Each call has a request of its own."""
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._model.create_infer_request()
        rows: Vectors = request.infer([pixels], share_inputs=True)[0]
        self._idle.put(request)
        return rows
