"""Serialises an index to a file with its sha256, and opens it from the bytes that were hashed."""

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
"""Start of every FAISS index file: four letters for the class, dimension, number of rows."""


def write(index: AnnIndex, file: BinaryIO) -> tuple[str, int]:
    """Write the index to an empty file; returns its sha256 (hex) and size in bytes.

    Raises OSError, for example when the disk is full.
    """
    digest = hashlib.sha256()
    errors: list[OSError] = []

    def put(chunk: bytes) -> int:
        # An exception must not pass through FAISS's C++ code; returning 0 bytes stops it.
        try:
            file.write(chunk)
        except OSError as exc:
            errors.append(exc)
            return 0
        digest.update(chunk)
        return len(chunk)

    try:
        faiss().write_index(index.faiss_index, faiss().PyCallbackIOWriter(put))
    except RuntimeError as exc:
        raise (errors[0] if errors else exc) from exc
    return digest.hexdigest(), file.tell()


def check_header(path: Path, size: int, rows: int) -> None:
    """Check size (bytes) and row count of an index file from its first bytes only.

    Raises IndexUnreadable when it cannot be read, IndexDamaged when it differs. Only `read`
    verifies the whole content.
    """
    try:
        with path.open("rb") as file:
            actual_size, header = os.fstat(file.fileno()).st_size, file.read(HEADER.size)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if actual_size != size:
        raise IndexDamaged(
            f"index file {path.name} is damaged: {actual_size} bytes long and not {size}"
        )
    if len(header) < HEADER.size or HEADER.unpack(header)[2] != rows:
        raise IndexDamaged(f"index file {path.name} is damaged: it begins as another file does")


def read(path: Path, sha256: str, kind: str, parameters: Mapping[str, Any]) -> AnnIndex:
    """Open an index file; raises IndexUnreadable when it is missing, unreadable or damaged."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except MemoryError as exc:
        raise IndexUnreadable(f"index file {path.name} does not fit in memory") from exc
    return deserialize(data, sha256, kind, parameters)


def deserialize(
    data: NDArray[np.uint8], sha256: str, kind: str, parameters: Mapping[str, Any]
) -> AnnIndex:
    """An index from the bytes of its file, after checking their sha256 (hex).

    Raises IndexDamaged when the hash differs or FAISS cannot open them, IndexUnreadable when they
    do not fit in memory.
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
