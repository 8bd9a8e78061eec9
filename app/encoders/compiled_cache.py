"""The cache of compiled towers: one file each, whole or not there, and what became of it.

Nothing in it matters: whatever is missing, damaged or of another model is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app import atomic_files

_FORMAT = "1"
_LONGEST = 10_000
"""Bytes of a file's first line that are read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """What runs a tower on this machine; `why` is the reason if that is not the fast library."""

    library: str
    why: str | None = None

    def __str__(self) -> str:
        return f"{self.library} ({self.why})" if self.why else self.library


@dataclass(frozen=True, slots=True)
class OpenVinoGraph:
    """A network as OpenVINO writes it: its layers in XML, and their weights."""

    layers: bytes
    weights: bytes

    @property
    def sha256(self) -> str:
        """Of both, in hex."""
        return hashlib.sha256(
            hashlib.sha256(self.layers).digest() + hashlib.sha256(self.weights).digest()
        ).hexdigest()


class CompiledCache:
    """Graphs by key, in a folder that may be unwritable, absent or shared by processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where the graph of this key lies."""
        return self.folder / f"{_name(key)}.tower"

    def read(self, key: str) -> OpenVinoGraph | None:
        """The graph of this key; None if it is not there, not readable, damaged or another's.

        Read into memory, never mapped: a process that maps a file which somebody truncates dies.
        """
        path = self.path(key)
        try:
            with path.open("rb") as file:
                return _unpacked(key, json.loads(file.readline(_LONGEST)), file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as exc:
            _log.warning("%s is no sound tower (%s); it is made again", path, exc)
            return None

    def write(self, key: str, graph: OpenVinoGraph) -> None:
        """Keep a graph; what cannot be written is made again by the next process."""
        head = {"format": _FORMAT, "key": key, "layers": len(graph.layers), "sha256": graph.sha256}
        self._put(self.path(key), json.dumps(head).encode() + b"\n", graph.layers, graph.weights)

    def note(self, fingerprint: str, state: RuntimeState) -> None:
        """Remember how the model's tower runs on this machine, for those who ask."""
        told = json.dumps({"library": state.library, "why": state.why}).encode()
        self._put(self._noted(fingerprint), told)

    def noted(self, fingerprint: str) -> RuntimeState | None:
        """How the model's tower ran when it was last loaded; None if it never was."""
        try:
            told = json.loads(self._noted(fingerprint).read_bytes())
            return RuntimeState(str(told["library"]), told["why"] and str(told["why"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _noted(self, fingerprint: str) -> Path:
        return self.folder / f"{_name(fingerprint)}.json"

    def _put(self, path: Path, *parts: bytes) -> None:
        try:  # readable by processes of other users
            atomic_files.write_bytes(path, *parts, mode=0o644)
        except OSError as exc:
            _log.info("%s cannot be written (%s)", path, exc)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _unpacked(key: str, head: dict[str, object], rest: BinaryIO) -> OpenVinoGraph:
    """Raises ValueError when the file is not what its first line says, or of another key."""
    if (head["format"], head["key"]) != (_FORMAT, key):
        raise ValueError("of another format or model")
    length = head["layers"]
    if not isinstance(length, int) or length < 0:
        raise ValueError("its first line is damaged")
    graph = OpenVinoGraph(rest.read(length), rest.read())
    if graph.sha256 != head["sha256"]:
        raise ValueError("damaged")
    return graph
