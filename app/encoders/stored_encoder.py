"""The embedded encoder from its compiled graph alone, without loading torch.

Loading torch and the networks takes several times as long as everything else that a search does. A
process that has loaded them records, beside the compiled graph, torch's vectors of the probe
images; later processes compare the graph with these before they use it. torch is loaded when
regions of a picture are to be searched.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from app.encoders.base import Encoder
from app.encoders.compiled_cache import CompileOptions, VerifiedGraph
from app.encoders.compiled_verification import MIN_COSINE, PROBE_COUNT, RunFunction, verify
from app.encoders.feature_map import MAP_SIDE, FeatureMap
from app.encoders.probe_images import probe_images
from app.encoders.square_pictures import SquarePictureEncoder
from app.images.decoding import DECODING
from app.types import Region, Vectors

if TYPE_CHECKING:
    from app.encoders.square_encoder import SquareEncoder

LIBRARIES = ("openvino", "torch", "numpy", "pillow")
"""Another version of one of these, and the graph is verified against torch anew."""

_log = logging.getLogger(__name__)


class StoredEncoder(SquarePictureEncoder):
    """Encodes pictures by a verified graph; `load` loads the network for feature maps."""

    def __init__(
        self,
        run: RunFunction,
        side: int,
        version: str,
        fingerprint: str,
        runtime: str,
        load: Callable[[], Encoder],
    ) -> None:
        super().__init__(run, side, version, fingerprint, runtime)
        self._load = load
        self._loading = threading.Lock()
        self._network: Encoder | None = None

    def encode_map(self, picture: Image.Image, side: int = MAP_SIDE) -> FeatureMap:
        """The feature map of an RGB picture, by the network."""
        return self._loaded().encode_map(picture)

    def pool_windows(self, feature_map: FeatureMap, windows: Sequence[Region]) -> Vectors:
        """Unit vectors of windows of a feature map: float32 (n, 512)."""
        return self._loaded().pool_windows(feature_map, windows)

    def _loaded(self) -> Encoder:
        with self._loading:
            if self._network is None:
                self._network = self._load()
            return self._network


def load_stored(
    version: str,
    side: int,
    files: Sequence[Path],
    options: CompileOptions,
    load: Callable[[], Encoder],
) -> StoredEncoder | None:
    """The encoder that a former process recorded for these files of weights and these libraries.

    None if there is no record, or its graph cannot be used: then torch has to be loaded. `load`
    loads the encoder without a compiled graph.
    """
    if options.off:
        return None
    try:
        verified = options.cache.load_verified(_key(version, side, files))
        graph = None if verified is None else options.cache.read(verified.graph)
        if verified is None or graph is None:
            return None
        from app.encoders import openvino_runtime

        run = openvino_runtime.OpenVinoModel(graph, options.streams)
        verify(run, verified.probe_vectors, MIN_COSINE, probe_images(PROBE_COUNT, (side, side)))
        runtime = f"OpenVINO {openvino_runtime.version()}"
    except (ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as exc:
        _log.info("the recorded graph of the embedded encoder cannot be used: %s", exc)
        return None
    return StoredEncoder(run, side, version, verified.fingerprint, runtime, load)


def record(
    version: str, encoder: SquareEncoder, files: Sequence[Path], options: CompileOptions
) -> None:
    """Record the graph of an encoder for `load_stored`, if OpenVINO runs it."""
    compiled = encoder.compiled
    if compiled.graph is None or compiled.probe_vectors is None:
        return
    verified = VerifiedGraph(compiled.fingerprint, compiled.graph, compiled.probe_vectors)
    try:
        options.cache.save_verified(_key(version, encoder.side, files), verified)
    except OSError as exc:
        _log.info("the verified graph is not recorded: %s", exc)


def _key(version: str, side: int, files: Sequence[Path]) -> str:
    """Everything that the vectors depend on, without loading it."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    libraries = " ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    return f"embedded {version} {side} {DECODING} {digest.hexdigest()} {libraries}"
