"""The embedded encoder from its compiled graphs alone, without loading torch.

Loading torch and the networks takes several times as long as everything else that a search does. A
process that has loaded them records, beside the graphs, torch's vectors of probe images; later
processes compare the graphs with these before they use them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.encoders.base import Encoder
from app.encoders.compiled_cache import (
    CompileOptions,
    OpenVinoGraph,
    RuntimeState,
    VerifiedGraphs,
)
from app.encoders.compiled_verification import MIN_COSINE, PROBE_COUNT, OutputMismatch, verify
from app.encoders.embedded_versions import SIDES
from app.encoders.feature_map import MAP_SIDE, FeatureMap
from app.encoders.probe_images import probe_images
from app.encoders.square_pictures import EncoderFunctions, SquarePictureEncoder
from app.images.decoding import DECODING
from app.types import Region, Vectors

if TYPE_CHECKING:
    from app.encoders.square_encoder import SquareEncoder

LIBRARIES = ("openvino", "torch", "numpy", "pillow")
"""Another version of one of these, and the graphs are verified against torch anew."""

PROBE_WINDOWS: Sequence[Region] = ((0, 0, 1, 1), (0.1, 0.2, 0.6, 0.9), (0.5, 0.5, 1, 1))
"""Windows of one probe image that the graphs for feature maps are verified with."""

_FAILURES = (ImportError, OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""Observed for a library that is missing, too old or too new, and for graphs that do not fit."""

_log = logging.getLogger(__name__)


class StoredEncoder(SquarePictureEncoder):
    """Encodes pictures by verified graphs. Those for feature maps are opened when needed; where
    they cannot be used, `load` loads the networks."""

    def __init__(
        self,
        encode: Callable[[NDArray[np.uint8]], Vectors],
        version: str,
        verified: VerifiedGraphs,
        options: CompileOptions,
        runtime: str,
        load: Callable[[], Encoder],
    ) -> None:
        self._mapping = threading.Lock()
        self._mapper: Encoder | None = None
        self._verified, self._options, self._load = verified, options, load
        functions = EncoderFunctions(encode, _not_opened, _not_opened)
        super().__init__(functions, version, verified.fingerprint, runtime)

    def encode_map(self, picture: Image.Image, side: int = MAP_SIDE) -> FeatureMap:
        """As `SquarePictureEncoder.encode_map`."""
        return self._opened().encode_map(picture, side)

    def pool_windows(self, feature_map: FeatureMap, windows: Sequence[Region]) -> Vectors:
        """As `SquarePictureEncoder.pool_windows`."""
        return self._opened().pool_windows(feature_map, windows)

    def _opened(self) -> SquarePictureEncoder:
        """The encoder that computes feature maps."""
        with self._mapping:
            if self._mapper is None:
                try:
                    self._mapper = self._open_graphs()
                except _FAILURES as exc:
                    _log.warning("feature maps are computed by torch: %s", exc)
                    self._mapper = self._load()
            assert isinstance(self._mapper, SquarePictureEncoder)
            return self._mapper

    def _open_graphs(self) -> SquarePictureEncoder:
        from app.encoders import openvino_runtime

        opened = []
        for name in ("map", "windows"):
            graph = self._options.cache.read(self._verified.graphs[name])
            if graph is None:
                raise OutputMismatch("a compiled graph is missing")
            opened.append(openvino_runtime.OpenVinoModel(graph))
        functions = EncoderFunctions(self._functions.encode, *opened)
        mapper = SquarePictureEncoder(functions, self._version, self.fingerprint, self.runtime)
        cosines = (_window_probe(mapper) * self._verified.vectors["windows"]).sum(axis=1)
        if not cosines.min() >= MIN_COSINE:
            raise OutputMismatch(f"their vectors are not those of torch (cosine {cosines.min()})")
        return mapper


def _not_opened(_: NDArray[np.generic]) -> NDArray[np.float32]:
    raise AssertionError("the graphs for feature maps are opened first")


def _window_probe(encoder: SquarePictureEncoder) -> Vectors:
    """The vectors of PROBE_WINDOWS of a probe image."""
    picture = Image.fromarray(probe_images(1, (300, 400), first=PROBE_COUNT)[0])
    return encoder.pool_windows(encoder.encode_map(picture), PROBE_WINDOWS)


def load_stored(
    version: str, files: Sequence[Path], options: CompileOptions, load: Callable[[], Encoder]
) -> StoredEncoder | None:
    """The encoder that a former process recorded for these files of weights and these libraries.

    None if there is no record, or its graph cannot be used: then torch has to be loaded. `load`
    loads the encoder without a compiled graph.
    """
    if options.off:
        return None
    try:
        verified = options.cache.load_verified(_key(version, files))
        if verified is None or not options.cache.has(verified.graphs.values()):
            return None
        graph = options.cache.read(verified.graphs["encode"])
        if graph is None:
            return None
        from app.encoders import openvino_runtime

        run = openvino_runtime.OpenVinoModel(graph, options.streams)
        shape = SIDES[version], SIDES[version]
        verify(run, verified.vectors["encode"], MIN_COSINE, probe_images(PROBE_COUNT, shape))
        state = RuntimeState(f"OpenVINO {openvino_runtime.version()}")
    except _FAILURES as exc:
        _log.info("the recorded graph of the embedded encoder cannot be used: %s", exc)
        return None
    if options.cache.load_state(verified.fingerprint) != state:
        options.cache.save_state(verified.fingerprint, state)
    return StoredEncoder(run, version, verified, options, str(state), load)


def record(
    version: str, encoder: SquareEncoder, files: Sequence[Path], options: CompileOptions
) -> None:
    """Record the graphs of an encoder for `load_stored`, if OpenVINO runs it and the cache could
    keep its graph: the other graphs take longer to make than all else that loads an encoder."""
    compiled = encoder.compiled
    if compiled.graph is None or compiled.probe_vectors is None:
        return
    if not (options.cache.has([compiled.graph]) and os.access(options.cache.folder, os.W_OK)):
        return
    graphs = {"encode": compiled.graph}
    try:
        for name, graph in _map_graphs(encoder).items():
            graphs[name] = f"{compiled.graph} {name}"
            options.cache.write(graphs[name], graph)
        vectors = {"encode": compiled.probe_vectors, "windows": _window_probe(encoder)}
        verified = VerifiedGraphs(compiled.fingerprint, graphs, vectors)
        options.cache.save_verified(_key(version, files), verified)
    except _FAILURES as exc:
        _log.info("the verified graphs are not recorded: %s", exc)


def _map_graphs(encoder: SquareEncoder) -> dict[str, OpenVinoGraph]:
    """The graphs that compute feature maps, and vectors of windows from them."""
    import torch

    from app.encoders import openvino_runtime

    picture = torch.zeros(1, encoder.side, encoder.side, 3, dtype=torch.uint8)
    channels = encoder.modules.map_cells(picture).shape[-1]
    return {
        "map": openvino_runtime.export_as(encoder.modules.map_cells, picture, (-1, -1, -1, 3)),
        "windows": openvino_runtime.export_as(
            encoder.modules.pool, torch.zeros(2, 2, channels), (-1, 2, channels)
        ),
    }


def _key(version: str, files: Sequence[Path]) -> str:
    """Everything that the vectors depend on, without loading it."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    libraries = " ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    return f"embedded {version} {SIDES[version]} {DECODING} {digest.hexdigest()} {libraries}"
