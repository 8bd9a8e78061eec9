"""Serialises an index to a file with its sha256, and opens it in blocks, the sha256 verified."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from app.errors import IndexDamaged, IndexUnreadable
from app.index.faiss_index import KINDS, AnnIndex
from app.index.faiss_library import faiss
from app.types import IN_PARTS

HEADER = struct.Struct("=4siq")
"""Start of every FAISS index file: four letters for the class, dimension, number of rows."""

COMPRESSED = b"lookalike/rabitq"
"""Precedes FAISS's bytes in the file of an index of compressed vectors. Versions that take such an
index for another kind would search it with the wrong parameters; with this, they cannot open it."""

BLOCK_BYTES = 1 << 20
"""Bytes that FAISS reads at a time."""


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

    if index.kind == "rabitq":
        file.write(COMPRESSED)
        digest.update(COMPRESSED)
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
            actual_size = os.fstat(file.fileno()).st_size
            header = file.read(len(COMPRESSED) + HEADER.size)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if actual_size != size:
        raise IndexDamaged(
            f"index file {path.name} is damaged: {actual_size} bytes long and not {size}"
        )
    header = header.removeprefix(COMPRESSED)[: HEADER.size]
    if len(header) < HEADER.size or HEADER.unpack(header)[2] != rows:
        raise IndexDamaged(f"index file {path.name} is damaged: it begins as another file does")


def read(path: Path, sha256: str, kind: str, parameters: Mapping[str, Any]) -> AnnIndex:
    """Open an index file; raises IndexUnreadable when it is missing, unreadable or damaged.

    The file is hashed before FAISS reads it: a damaged size in it could make FAISS allocate any
    amount of memory. Only a block of it is in memory at a time.
    """
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise _damaged(sha256)
            file.seek(0)
            return read_stream(file.read, sha256, kind, parameters)
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def read_stream(
    read: Callable[[int], bytes], sha256: str, kind: str, parameters: Mapping[str, Any]
) -> AnnIndex:
    """An index from the content of its file, which FAISS reads in blocks and which is hashed
    meanwhile; `read(size)` returns up to `size` bytes, none at the end.

    The content must have been verified: its hash is compared again, because it may have changed
    since. Raises IndexDamaged when the hash differs or FAISS cannot open the content,
    IndexUnreadable when it does not fit in memory, and what `read` raises.
    """
    digest = hashlib.sha256()
    errors: list[Exception] = []

    def take(size: int) -> bytes:
        # An exception must not pass through FAISS's C++ code; returning nothing stops it.
        try:
            block = read(size)
        except Exception as exc:
            errors.append(exc)
            return b""
        digest.update(block)
        return block

    if kind == "rabitq" and take(len(COMPRESSED)) != COMPRESSED and not errors:
        raise IndexDamaged(f"index file {sha256}.faiss begins as another kind of index does")
    try:
        faiss_index = faiss().read_index(faiss().PyCallbackIOReader(take, BLOCK_BYTES))
    except RuntimeError as exc:
        if errors:
            raise errors[0] from exc
        raise IndexDamaged(f"index file {sha256}.faiss cannot be opened by this faiss") from exc
    except MemoryError as exc:
        raise IndexUnreadable(f"index file {sha256}.faiss does not fit in memory") from exc
    while take(BLOCK_BYTES):
        pass
    if errors:
        raise errors[0]
    if digest.hexdigest() != sha256:
        raise _damaged(sha256)
    return AnnIndex(faiss_index, kind, parameters)


def check_kind(kind: str) -> None:
    """Raise IndexUnreadable for an index that this version cannot search."""
    if kind.removesuffix(IN_PARTS) not in KINDS:
        raise IndexUnreadable(f"its kind, {kind}, is one of a later version; update this process")


def _damaged(sha256: str) -> IndexDamaged:
    return IndexDamaged(f"index file {sha256}.faiss is damaged: its sha256 is another")


def _unreadable(path: Path, exc: OSError) -> IndexUnreadable:
    return IndexUnreadable(f"index file {path.name} cannot be read: {exc.strerror}")
