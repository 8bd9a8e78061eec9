"""The folder of index files: written whole or not at all, named by their sha256, opened once."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app import atomic_files
from app.errors import IndexDamaged, IndexUnreadable, IndexUnwritable
from app.index import faiss_io
from app.index.faiss_index import AnnIndex
from app.types import Build

KEPT_OPEN = 2
"""The build in use and the one before it, which a search that began earlier may still need."""


DRAFT_SUFFIX = ".tmp"
"""Of a file that the builder is writing. Files that are fetched have `atomic_files.SUFFIX`."""

LEFT_S = 3600
"""Seconds after which a file that was being fetched counts as left behind."""


Fetch = Callable[[Build], Iterable[bytes]]
"""Where a file comes from that is not in the folder: its pieces in order, none if unknown."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a file could not be opened, and the state the file was in; a changed file is retried."""

    reason: str
    state: tuple[int, int, int] | None


class IndexFiles:
    """Index files in a folder and the few that are open. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._open: OrderedDict[str, AnnIndex] = OrderedDict()
        self._failed: dict[str, _Failure] = {}

    def path(self, sha256: str) -> Path:
        """Where the file of a build lies, whether it is there or not."""
        return self.folder / f"{sha256}.faiss"

    def check_writable(self) -> None:
        """Raise IndexUnwritable unless a file can be made here; cheaper to learn before a build."""
        try:
            with atomic_files.draft(self.folder, suffix=DRAFT_SUFFIX, durable=False):
                pass  # a builder may remove the draft before this does
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def write(
        self, index: AnnIndex, announce: Callable[[str], None] = lambda sha256: None
    ) -> tuple[str, int]:
        """Write an index; returns its sha256 (hex) and size in bytes.

        `announce` is told the sha256 before the file gets its name, so that whoever comes after a
        builder that was killed knows which file it may have left.

        The file appears under its name complete and flushed to disk, or not at all.
        Raises IndexUnwritable when the disk is full or the folder cannot be written.
        """
        try:
            with atomic_files.draft(self.folder, suffix=DRAFT_SUFFIX) as draft:
                sha256, size = faiss_io.write(index, draft.file)
                draft.finish()
                announce(sha256)
                draft.publish(self.path(sha256))
        except OSError as exc:
            raise self._unwritable(exc) from exc
        return sha256, size

    def opened(self, build: Build) -> AnnIndex | None:
        """The index of a build if it is open already."""
        with self._lock:
            index = self._open.get(build.sha256)
            if index is not None:
                self._open.move_to_end(build.sha256)
        return None if index is None else _with_parameters(index, build)

    def open(self, build: Build, fetch: Fetch | None = None) -> AnnIndex:
        """The index of a build, read on first use; a search that has another one goes on with it.

        A missing or damaged file is made again from what `fetch` brings. Raises IndexUnreadable
        with the reason when that fails too.
        """
        with self._reading:
            found = self.opened(build)
            if found is not None:
                return found
            index = self._read(build, fetch)
        with self._lock:
            self._open[build.sha256] = index
            while len(self._open) > KEPT_OPEN:
                self._open.popitem(last=False)
        return index

    def look(self, build: Build) -> None:
        """Raise IndexUnreadable where a build's file is missing or, as its length and first bytes
        tell, or this process learnt when it opened it, is not the one that was written.

        For whoever only wants to know: before it is searched, `open` verifies all of it.
        """
        path = self.path(build.sha256)
        with self._lock:
            in_use = build.sha256 in self._open
        failed = self._failed.get(build.sha256)
        if failed and failed.state == _state(path):
            raise IndexDamaged(failed.reason)
        if not in_use:
            faiss_io.look(path, build.size, build.rows)

    def open_soon(self, build: Build, fetch: Fetch | None = None) -> None:
        """Open the index of a build in the background, unless something is being opened."""
        if self._reading.locked():
            return

        def work() -> None:
            with suppress(IndexUnreadable):
                self.open(build, fetch)

        threading.Thread(target=work, name="open-index", daemon=True).start()

    def remove(self, sha256: str) -> None:
        """Delete the file of a retired build; whoever has it open keeps it until then."""
        with suppress(OSError):
            self.path(sha256).unlink(missing_ok=True)

    def remove_drafts(self) -> None:
        """Delete what an interrupted build left half-written; only for the one builder."""
        for draft in self.folder.glob(f"*{DRAFT_SUFFIX}"):
            with suppress(OSError):
                draft.unlink()

    def _read(self, build: Build, fetch: Fetch | None) -> AnnIndex:
        state = _state(self.path(build.sha256))
        failed = self._failed.get(build.sha256)
        if failed and failed.state == state:
            raise IndexDamaged(failed.reason)
        try:
            index = self._read_or_fetch(build, fetch)
        except IndexDamaged as exc:
            # Hashing a damaged gigabyte once is enough; what could not be read may be read later.
            self._failed[build.sha256] = _Failure(str(exc), state)
            raise
        self._failed.pop(build.sha256, None)
        return index

    def _read_or_fetch(self, build: Build, fetch: Fetch | None) -> AnnIndex:
        try:
            return faiss_io.read(
                self.path(build.sha256), build.sha256, build.kind, build.parameters
            )
        except IndexUnreadable:
            data = b"".join(fetch(build)) if fetch else b""
            if len(data) != build.size:
                raise
        found = np.frombuffer(data, dtype=np.uint8)
        index = faiss_io.parse(found, build.sha256, build.kind, build.parameters)
        self._keep(data, build)
        return index

    def _keep(self, data: bytes, build: Build) -> None:
        """Put a fetched file where it was missing; a folder that is read-only does without."""
        with suppress(OSError):
            for left in self.folder.glob(f"*{atomic_files.SUFFIX}"):  # by a process that was killed
                if time.time() - left.stat().st_mtime > LEFT_S:
                    left.unlink(missing_ok=True)
            atomic_files.write_bytes(self.path(build.sha256), data, durable=False)

    def _unwritable(self, exc: OSError) -> IndexUnwritable:
        return IndexUnwritable(
            f"The index could not be written to {self.folder}: {exc.strerror or exc}. Nothing was "
            "published. Make room, or choose another folder with LOOKALIKE_INDEX_DIR."
        )


def _with_parameters(index: AnnIndex, build: Build) -> AnnIndex:
    """Another build may share the very same bytes and search them with other parameters."""
    if index.parameters == build.parameters:
        return index
    return AnnIndex(index.faiss_index, build.kind, build.parameters)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def intact(file: Path, sha256: str) -> bool | None:
    """Whether a file is what was written; None where there is none that can be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == sha256
    except OSError:
        return None


def whole(pieces: Iterable[bytes], sha256: str) -> bool | None:
    """Whether pieces make up the file with this sha256; None if there are none."""
    digest, some = hashlib.sha256(), False
    for piece in pieces:
        digest.update(piece)
        some = True
    return digest.hexdigest() == sha256 if some else None


def put(file: Path, pieces: Iterable[bytes]) -> None:
    """Make a file of its pieces, whole or not at all. Raises IndexUnwritable."""
    try:
        with atomic_files.replace(file, durable=False) as out:
            out.writelines(pieces)
    except OSError as exc:
        raise IndexUnwritable(
            f"{file.parent} cannot be written: {exc.strerror or exc}. Make room, or choose another "
            "folder with LOOKALIKE_INDEX_DIR."
        ) from exc


def left_behind(folder: Path, needed: Collection[str]) -> list[Path]:
    """Files that no build needs and that no process is making; only for the one builder.

    `needed` are the sha256 of builds. A file that may be on its way in from the database is spared.
    """
    found = [file for file in folder.glob("*.faiss") if file.stem not in needed]
    found += folder.glob(f"*{DRAFT_SUFFIX}")
    found += [file for file in folder.glob(f"*{atomic_files.SUFFIX}") if _age(file) > LEFT_S]
    return sorted(found)


def remove(files: Iterable[Path]) -> int:
    """Delete files; returns how many are gone."""
    gone = 0
    for file in files:
        with suppress(OSError):
            file.unlink()
            gone += 1
    return gone


def _age(file: Path) -> float:
    """Seconds since a file was written to; 0 for one that has gone meanwhile."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return 0
