"""Cache on disk of compiled models, and of the runtime that each model's encoder uses.

A file is complete or absent. Nothing in the cache is needed: whatever is missing, damaged or of
another model is built again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from app import atomic_files
from app.types import Vectors

_FORMAT = "1"
_MAX_HEADER = 10_000
"""Maximum bytes of a file's header, which is its first line."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """The library that runs a model on this machine; `reason` is set if it is not OpenVINO."""

    library: str
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.library} ({self.reason})" if self.reason else self.library


@dataclass(frozen=True, slots=True)
class OpenVinoGraph:
    """A network in OpenVINO's format: its layers in XML, and their weights."""

    layers: bytes
    weights: bytes

    @property
    def sha256(self) -> str:
        """Of both, in hex."""
        return hashlib.sha256(
            hashlib.sha256(self.layers).digest() + hashlib.sha256(self.weights).digest()
        ).hexdigest()


@dataclass(frozen=True, slots=True)
class VerifiedGraphs:
    """The graphs of an encoder, and what they are verified by.

    `graphs` are keys in the cache, by name. `vectors` are torch's vectors of probe images, float32
    (n, dim), by what computed them.
    """

    fingerprint: str
    graphs: Mapping[str, str]
    vectors: Mapping[str, Vectors]


class CompiledCache:
    """Graphs by key, in a folder that may be read-only, missing or shared by processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """The file for the graph of this key."""
        return self.folder / f"{_name(key)}.tower"

    def read(self, key: str) -> OpenVinoGraph | None:
        """The graph of this key; None if it is missing, unreadable, damaged or of another key.

        A damaged file is removed, so that whoever needs the graph next builds it again. The file is
        read, not memory-mapped: a process that maps a file is killed when another process truncates
        it.
        """
        path = self.path(key)
        try:
            with path.open("rb") as file:
                return _parse(key, json.loads(file.readline(_MAX_HEADER)), file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as exc:
            _log.warning("%s is not a valid compiled model (%s); it is built again", path, exc)
            if not isinstance(exc, OSError):  # which may pass
                with suppress(OSError):
                    path.unlink()
            return None

    def has(self, keys: Iterable[str]) -> bool:
        """Whether there are files of all these graphs, which are not read."""
        return all(self.path(key).exists() for key in keys)

    def write(self, key: str, graph: OpenVinoGraph) -> None:
        """Store a graph. If the folder cannot be written, the next process builds it again."""
        head = {"format": _FORMAT, "key": key, "layers": len(graph.layers), "sha256": graph.sha256}
        self._write(self.path(key), json.dumps(head).encode() + b"\n", graph.layers, graph.weights)

    def save_state(self, fingerprint: str, state: RuntimeState) -> None:
        """Record what runs the model with this fingerprint on this machine."""
        document = json.dumps({"library": state.library, "why": state.reason}).encode()
        self._write(self._state_path(fingerprint), document)

    def load_state(self, fingerprint: str) -> RuntimeState | None:
        """What ran the model when it was last loaded; None if it never was."""
        try:
            document = json.loads(self._state_path(fingerprint).read_bytes())
            return RuntimeState(str(document["library"]), document["why"] and str(document["why"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def save_verified(self, key: str, verified: VerifiedGraphs) -> None:
        """Record graphs whose vectors were compared with torch's."""
        vectors = {
            name: [list(rows.shape), base64.b64encode(rows.astype("<f4").tobytes()).decode()]
            for name, rows in verified.vectors.items()
        }
        document = {
            "format": _FORMAT, "key": key, "fingerprint": verified.fingerprint,
            "graphs": dict(verified.graphs), "vectors": vectors,
        }  # fmt: skip
        body = json.dumps(document).encode()
        digest = hashlib.sha256(body).hexdigest().encode()
        self._write(self._verified_path(key), digest, b"\n", body)

    def load_verified(self, key: str) -> VerifiedGraphs | None:
        """The graphs that were verified under this key; None if there are none, or the record is
        damaged."""
        try:
            digest, _, body = self._verified_path(key).read_bytes().partition(b"\n")
            if hashlib.sha256(body).hexdigest().encode() != digest:
                return None
            document = json.loads(body)
            if (document["format"], document["key"]) != (_FORMAT, key):
                return None
            graphs = {str(name): str(graph) for name, graph in document["graphs"].items()}
            vectors = {
                name: np.frombuffer(base64.b64decode(data), "<f4").reshape(shape).astype(np.float32)
                for name, (shape, data) in document["vectors"].items()
            }
            return VerifiedGraphs(str(document["fingerprint"]), graphs, vectors)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def _verified_path(self, key: str) -> Path:
        return self.folder / f"{_name(key)}.verified.json"

    def _state_path(self, fingerprint: str) -> Path:
        return self.folder / f"{_name(fingerprint)}.json"

    def _write(self, path: Path, *parts: bytes) -> None:
        try:  # readable by processes of other users
            atomic_files.write_bytes(path, *parts, mode=0o644)
        except OSError as exc:
            _log.info("%s cannot be written (%s)", path, exc)


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """How to compile: `off` is the reason not to.

    `streams` is how many batches a compiled model runs at once, each on its share of the cores.
    """

    cache: CompiledCache
    off: str | None = None
    streams: int = 1


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _parse(key: str, head: dict[str, object], body: BinaryIO) -> OpenVinoGraph:
    """The graph after a header. Raises ValueError if they do not match, or for another key."""
    if (head["format"], head["key"]) != (_FORMAT, key):
        raise ValueError("it has another format or belongs to another model")
    length = head["layers"]
    if not isinstance(length, int) or length < 0:
        raise ValueError("its header is damaged")
    graph = OpenVinoGraph(body.read(length), body.read())
    if graph.sha256 != head["sha256"]:
        raise ValueError("its content is damaged")
    return graph
