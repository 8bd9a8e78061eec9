"""An index as a file: written with its sha256, and read from the very bytes that were hashed."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.errors import IndexDamaged, IndexUnreadable
from app.index.faiss_index import AnnIndex, faiss

HEADER = struct.Struct("=4siq")
"""How FAISS begins every index: its class in four letters, numbers a row, rows."""


def write(index: AnnIndex, file: BinaryIO) -> tuple[str, int]:
    """Write the index to an empty file; returns its sha256 (hex) and size in bytes.

    Raises OSError, for example when the disk is full.
    """
    digest = hashlib.sha256()
    failed: list[OSError] = []

    def put(chunk: bytes) -> int:
        # An exception may not cross FAISS's C++ code; it stops when told 0 were written.
        try:
            file.write(chunk)
        except OSError as exc:
            failed.append(exc)
            return 0
        digest.update(chunk)
        return len(chunk)

    try:
        faiss().write_index(index.faiss_index, faiss().PyCallbackIOWriter(put))
    except RuntimeError as exc:
        raise (failed[0] if failed else exc) from exc
    return digest.hexdigest(), file.tell()


def look(path: Path, size: int, rows: int) -> None:
    """Raise IndexUnreadable where a file is plainly not the index of so many bytes and rows that
    was written. Reads a few bytes; only `read` knows whether the rest is as it was."""
    try:
        with path.open("rb") as file:
            found, head = os.fstat(file.fileno()).st_size, file.read(HEADER.size)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if found != size:
        raise IndexDamaged(f"index file {path.name} is damaged: {found} bytes long and not {size}")
    if len(head) < HEADER.size or HEADER.unpack(head)[2] != rows:
        raise IndexDamaged(f"index file {path.name} is damaged: it begins as another file does")


def read(path: Path, sha256: str, kind: str, parameters: Mapping[str, Any]) -> AnnIndex:
    """Open an index file; raises IndexUnreadable when it is missing, unreadable or damaged."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except MemoryError as exc:
        raise IndexUnreadable(f"index file {path.name} does not fit in memory") from exc
    return parse(data, sha256, kind, parameters)


def parse(
    data: NDArray[np.uint8], sha256: str, kind: str, parameters: Mapping[str, Any]
) -> AnnIndex:
    """An index from the bytes of its file: those that are hashed are those that are opened.

    Raises IndexUnreadable when they have another sha256.
    """
    if hashlib.sha256(data.data).hexdigest() != sha256:
        raise IndexDamaged(f"index file {sha256}.faiss is damaged: its sha256 is another")
    try:
        return AnnIndex(faiss().deserialize_index(data), kind, parameters)
    except RuntimeError as exc:
        raise IndexDamaged(f"index file {sha256}.faiss cannot be opened by this faiss") from exc
    except MemoryError as exc:
        raise IndexUnreadable(f"index file {sha256}.faiss does not fit in memory") from exc


def _unreadable(path: Path, exc: OSError) -> IndexUnreadable:
    return IndexUnreadable(f"index file {path.name} cannot be read: {exc.strerror}")
