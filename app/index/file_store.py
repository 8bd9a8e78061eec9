"""Index files on disk: written atomically, named by their sha256, verified, and opened once."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app import atomic_files
from app.errors import IndexDamaged, IndexUnreadable, IndexUnwritable
from app.index import faiss_io, memory
from app.index.faiss_index import AnnIndex
from app.index.nominees import NominatingIndex
from app.index.parted_index import LocalParts, PartedIndex
from app.types import Build

MAX_OPEN = 2
"""Indexes kept in memory: the build in use, and the one before, which a search that began earlier
may still need."""

RELEASE_S = 60.0
"""While another index is in use, one that no search asked for in this many seconds is given up."""

DRAFT_SUFFIX = ".tmp"
"""Suffix of a file that the builder writes. A file that is fetched has `atomic_files.SUFFIX`."""

STALE_S = 3600
"""Age after which a partly fetched file counts as abandoned, in seconds."""

ReadIndexFile = Callable[[Build], Iterable[bytes]]
"""Reads the file of a build, or of one of its `files`, from the database: its pieces in order, none
if it is not there."""

OpenParts = Callable[[Build, bool], PartedIndex]
"""Opens the parts of a build elsewhere; all of them if, by the second argument, a previous build
answers meanwhile. Raises IndexUnreadable."""


@dataclass(slots=True)
class _OpenIndex:
    """An index, and the monotonic time in seconds at which a search last asked for it."""

    index: NominatingIndex
    used_at: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a file could not be opened, and its state then; a file in another state is retried."""

    reason: str
    state: tuple[int, int, int] | None


class IndexFiles:
    """The index files in a folder and the indexes that are open. Thread-safe."""

    def __init__(self, folder: Path, open_parts: OpenParts | None = None) -> None:
        """`open_parts` opens builds in parts; without it, their files are opened here."""
        self.folder = folder
        self._open_parts = open_parts
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._open: OrderedDict[str, _OpenIndex] = OrderedDict()
        self._failed: dict[str, _Failure] = {}

    def path(self, sha256: str) -> Path:
        """The path of the file with this sha256 (hex), whether it exists or not."""
        return self.folder / f"{sha256}.faiss"

    def check_writable(self) -> None:
        """Raise IndexUnwritable unless a file can be created in the folder; called before a build,
        so that it does not fail at its end."""
        try:
            with atomic_files.draft(self.folder, suffix=DRAFT_SUFFIX, durable=False):
                pass  # a builder may remove the draft before this does
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def write(
        self, index: AnnIndex, announce: Callable[[str], None] = lambda sha256: None
    ) -> tuple[str, int]:
        """Write an index; returns its sha256 (hex) and size in bytes.

        `announce` is called with the sha256 before the file gets its name, so that the builder that
        follows a killed one knows which file it may have left.

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

    def opened(self, build: Build) -> NominatingIndex | None:
        """The index of a build if it is open; None otherwise."""
        now = time.monotonic()
        with self._lock:
            found = self._open.get(build.sha256)
            if found is None:
                return None
            found.used_at = now
            self._open.move_to_end(build.sha256)
            before = len(self._open)
            while now - next(iter(self._open.values())).used_at > RELEASE_S:
                self._open.popitem(last=False)
            released = len(self._open) < before
        if released:
            memory.give_back()
        return _with_parameters(found.index, build)

    def open(self, build: Build, read_file: ReadIndexFile | None = None) -> NominatingIndex:
        """The index of a build, read on first use. Searches that hold another index keep it.

        A missing or damaged file is replaced by the one that `read_file` returns. Raises
        IndexUnreadable with the reason when that fails too.
        """
        with self._reading:
            index = self.opened(build)
            if index is not None:
                return index
            self._make_room()
            index = self._read_all(build, read_file)
            with self._lock:
                self._open[build.sha256] = _OpenIndex(index, time.monotonic())
        memory.give_back()  # also what loading the encoder left behind
        return index

    def check(self, build: Build) -> None:
        """Raise IndexUnreadable if a build's file is missing, has another size or header than was
        written, or could not be opened by this process earlier.

        A cheap check for status reports; `open` verifies the whole file before it is searched.
        """
        with self._lock:
            in_use = build.sha256 in self._open
        if self.opens_elsewhere(build):
            return  # the files are read elsewhere
        for each in build.files:
            path = self.path(each.sha256)
            failed = self._failed.get(each.sha256)
            if failed and failed.state == _state(path):
                raise IndexDamaged(failed.reason)
            if not in_use:
                faiss_io.check_header(path, each.size, each.rows)

    def open_soon(self, build: Build, read_file: ReadIndexFile | None = None) -> None:
        """Open the index of a build in a background thread, unless one is being opened."""
        if self._reading.locked():
            return

        def open_quietly() -> None:
            with suppress(IndexUnreadable):
                self.open(build, read_file)

        threading.Thread(target=open_quietly, name="open-index", daemon=True).start()

    def close(self) -> None:
        """Give up all indexes; searches that hold one keep it."""
        with self._lock:
            self._open.clear()

    def opens_elsewhere(self, build: Build) -> bool:
        """Whether a build is opened in other processes, which takes a while."""
        return self._open_parts is not None and bool(build.parts)

    def remove(self, sha256: str) -> None:
        """Delete the file of a retired build; processes that have the index open keep it."""
        with suppress(OSError):
            self.path(sha256).unlink(missing_ok=True)

    def remove_drafts(self) -> None:
        """Delete temporary files of interrupted builds. Call it with the builder's lock only."""
        for draft in self.folder.glob(f"*{DRAFT_SUFFIX}"):
            with suppress(OSError):
                draft.unlink()

    def _make_room(self) -> None:
        """Give up the indexes used least recently before another is opened, so that memory never
        holds more than MAX_OPEN, except those that a search still uses."""
        with self._lock:
            while len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)

    def read(self, build: Build, read_file: ReadIndexFile | None = None) -> AnnIndex:
        """The index in a file of a build, one of its `files`, read anew. Raises IndexUnreadable."""
        with self._reading:
            return self._read(build, read_file)

    def _read_all(self, build: Build, read_file: ReadIndexFile | None) -> NominatingIndex:
        """The index of a build, in one file or in parts."""
        faiss_io.check_kind(build.kind)
        if not build.parts:
            return self._read(build, read_file)
        if self._open_parts is not None:
            return self._open_parts(build, bool(self._open))
        indexes = [self._read(each, read_file) for each in build.files]
        return PartedIndex(
            build.index_kind, indexes[0].dim, build.parameters, build.parts, LocalParts(indexes)
        )

    def _read(self, build: Build, read_file: ReadIndexFile | None) -> AnnIndex:
        state = _state(self.path(build.sha256))
        failed = self._failed.get(build.sha256)
        if failed and failed.state == state:
            raise IndexDamaged(failed.reason)
        try:
            index = self._read_or_fetch(build, read_file)
        except IndexDamaged as exc:
            # A damaged file is hashed once only; an unreadable file may become readable.
            self._failed[build.sha256] = _Failure(str(exc), state)
            raise
        self._failed.pop(build.sha256, None)
        return index

    def _read_or_fetch(self, build: Build, read_file: ReadIndexFile | None) -> AnnIndex:
        path = self.path(build.sha256)
        try:
            return faiss_io.read(path, build.sha256, build.kind, build.parameters)
        except IndexUnreadable:
            if read_file is None:
                raise
            fetched = self._fetch(build, read_file)
            if fetched is None:
                raise
        if fetched:
            return faiss_io.read(path, build.sha256, build.kind, build.parameters)
        stream = _PieceReader(read_file(build))
        return faiss_io.read_stream(stream.read, build.sha256, build.kind, build.parameters)

    def _fetch(self, build: Build, read_file: ReadIndexFile) -> bool | None:
        """Copy a build's file from the database to the folder, in pieces: True if it has its name
        there, False if the folder cannot be written, None if the database does not have it.

        Raises IndexDamaged if the database has another content.
        """
        with suppress(OSError):
            for stale in self.folder.glob(f"*{atomic_files.SUFFIX}"):  # of processes that died
                if _age(stale) > STALE_S:
                    stale.unlink(missing_ok=True)
            with atomic_files.draft(self.folder, durable=False) as draft:
                if not _verified(read_file(build), build, draft.file.write):
                    return None
                draft.publish(self.path(build.sha256))
                return True
        return False if _verified(read_file(build), build) else None

    def _unwritable(self, exc: OSError) -> IndexUnwritable:
        return IndexUnwritable(
            f"The index could not be written to {self.folder}: {exc.strerror or exc}. Nothing was "
            "published. Make room, or choose another folder with LOOKALIKE_INDEX_DIR."
        )


def _with_parameters(index: NominatingIndex, build: Build) -> NominatingIndex:
    """Builds with identical files share one index, each with its own search parameters."""
    if index.parameters == build.parameters:
        return index
    return index.with_parameters(build.parameters)


def _verified(
    pieces: Iterable[bytes],
    build: Build,
    keep: Callable[[bytes], object] = lambda piece: None,
) -> bool:
    """Pass the pieces of a build's file to `keep`, and check them; False if there are too few.

    Raises IndexDamaged if their size is right and their sha256 is not.
    """
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        keep(piece)
        digest.update(piece)
        size += len(piece)
    if size != build.size:
        return False
    if digest.hexdigest() != build.sha256:
        raise IndexDamaged(
            f"index file {build.sha256}.faiss is damaged: its sha256 is another, also that of the "
            "copy in the database"
        )
    return True


class _PieceReader:
    """Reads a stream of pieces in blocks of any size."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        block, self._rest = self._rest[:size], self._rest[size:]
        return bytes(block)


def _state(path: Path) -> tuple[int, int, int] | None:
    """Inode, size and modification time; None if the file is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def is_intact(file: Path, sha256: str) -> bool | None:
    """Whether a file has this sha256 (hex); None if it is missing or cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except OSError:
        return None


def pieces_match(pieces: Iterable[bytes], sha256: str) -> bool | None:
    """Whether the concatenated pieces have this sha256 (hex); None if there are none."""
    digest, empty = hashlib.sha256(), True
    for piece in pieces:
        digest.update(piece)
        empty = False
    return None if empty else digest.hexdigest() == sha256


def write_pieces(file: Path, pieces: Iterable[bytes]) -> None:
    """Write a file from its pieces, completely or not at all. Raises IndexUnwritable."""
    try:
        with atomic_files.replace(file, durable=False) as out:
            out.writelines(pieces)
    except OSError as exc:
        raise IndexUnwritable(
            f"{file.parent} cannot be written: {exc.strerror or exc}. Make room, or choose another "
            "folder with LOOKALIKE_INDEX_DIR."
        ) from exc


def unneeded_files(folder: Path, needed: Collection[str]) -> list[Path]:
    """Index and temporary files that no build needs. Call it with the builder's lock only.

    `needed` are the sha256 (hex) of builds. Recent `.part` files are kept: another process may be
    fetching them from the database.
    """
    files = [file for file in folder.glob("*.faiss") if file.stem not in needed]
    files += folder.glob(f"*{DRAFT_SUFFIX}")
    files += [file for file in folder.glob(f"*{atomic_files.SUFFIX}") if _age(file) > STALE_S]
    return sorted(files)


def delete_files(files: Iterable[Path]) -> int:
    """Delete files where possible; returns how many were deleted."""
    deleted = 0
    for file in files:
        with suppress(OSError):
            file.unlink()
            deleted += 1
    return deleted


def _age(file: Path) -> float:
    """Seconds since a file was modified; 0 for a file that no longer exists."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return 0
