"""Index files are verified before they are used, and opened in blocks."""

from __future__ import annotations

import hashlib
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import IndexDamaged, IndexUnreadable
from app.index import faiss_index, faiss_io, memory
from app.index.file_store import MAX_OPEN, IndexFiles
from app.types import Build

ROWS, DIM = 4000, 256


def made(files: IndexFiles, seed: int = 0) -> Build:
    """A flat index of 4 MB in the folder."""
    vectors = np.random.default_rng(seed).standard_normal((ROWS, DIM)).astype(np.float32)
    index = faiss_index.build(np.arange(ROWS, dtype=np.int64), vectors)
    sha256, size = files.write(index)
    figures: dict[str, Any] = dict.fromkeys(Build.__slots__)
    return Build(
        **figures
        | {"id": 1, "kind": "flat", "parameters": {}, "rows": ROWS, "sha256": sha256, "size": size}
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Build, bytes]:
    """A build and the content of its file."""
    files = IndexFiles(tmp_path_factory.mktemp("index"))
    build = made(files)
    return build, files.path(build.sha256).read_bytes()


def in_pieces(content: bytes) -> Callable[[Build], Iterator[bytes]]:
    """As the database returns it, in pieces of 100,000 bytes."""
    return lambda build: (content[at : at + 100_000] for at in range(0, len(content), 100_000))


def most_memory(work: Callable[[], object]) -> int:
    """Peak memory of Python and numpy in bytes, without what FAISS itself takes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def unwritable(folder: Path) -> Path:
    """A folder that cannot be made."""
    (folder / "file").write_text("no folder")
    return folder / "file" / "index"


def test_opening_a_file_holds_no_copy_of_it(
    tmp_path: Path, stored: tuple[Build, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, content = stored
    monkeypatch.setattr(faiss_io, "BLOCK_BYTES", 1 << 16)
    files = IndexFiles(tmp_path)
    files.path(build.sha256).write_bytes(content)
    assert most_memory(lambda: files.open(build)) < len(content) / 4
    assert files.open(build).rows == ROWS


@pytest.mark.parametrize("writable", [True, False])
def test_fetching_a_file_holds_no_copy_of_it(
    tmp_path: Path,
    stored: tuple[Build, bytes],
    monkeypatch: pytest.MonkeyPatch,
    *,
    writable: bool,
) -> None:
    build, content = stored
    monkeypatch.setattr(faiss_io, "BLOCK_BYTES", 1 << 16)
    files = IndexFiles(tmp_path if writable else unwritable(tmp_path))
    assert most_memory(lambda: files.open(build, in_pieces(content))) < len(content) / 4
    index = files.open(build)
    assert index.nominate(np.eye(DIM, dtype=np.float32)[0], 5).ids.size == 5
    assert files.path(build.sha256).exists() is writable


def test_a_fetched_file_gets_its_name_only_if_its_hash_is_right(
    tmp_path: Path, stored: tuple[Build, bytes]
) -> None:
    build, content = stored
    files = IndexFiles(tmp_path)
    with pytest.raises(IndexDamaged, match="sha256"):
        files.open(build, in_pieces(content[:-1] + b"x"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_database_has_in_part_is_not_used(
    tmp_path: Path, stored: tuple[Build, bytes]
) -> None:
    build, content = stored
    for folder in (tmp_path, unwritable(tmp_path)):
        with pytest.raises(IndexUnreadable, match="cannot be read"):
            IndexFiles(folder).open(build, in_pieces(content[:-100_000]))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("harm", ["bit", "shorter", "longer"])
def test_faiss_never_reads_a_damaged_file(
    tmp_path: Path, stored: tuple[Build, bytes], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """A damaged size could make it allocate any amount of memory."""
    build, content = stored
    flipped = bytes([content[0] ^ 1]) + content[1:]
    damaged = {
        "bit": flipped,
        "shorter": content[:-1],
        "longer": content + b"x",
    }[harm]
    files = IndexFiles(tmp_path)
    files.path(build.sha256).write_bytes(damaged)
    called: list[object] = []
    monkeypatch.setattr(faiss_index.faiss(), "read_index", called.append)
    for read_file in (None, in_pieces(flipped)):
        with pytest.raises(IndexDamaged):
            files.open(build, read_file)
        files = IndexFiles(tmp_path)
    assert called == []


def test_a_file_that_changes_between_hashing_and_reading_is_not_used(
    stored: tuple[Build, bytes],
) -> None:
    build, content = stored
    at = len(content) // 2
    changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    for later in (changed, content + b"x"):
        stream = iter([later])
        with pytest.raises(IndexDamaged, match="sha256"):
            faiss_io.read_stream(reader(stream), build.sha256, build.kind, {})


def reader(pieces: Iterable[bytes]) -> Callable[[int], bytes]:
    data = bytearray(b"".join(pieces))

    def read(size: int) -> bytes:
        block = bytes(data[:size])
        del data[:size]
        return block

    return read


def test_an_error_while_faiss_reads_is_raised_as_it_is(stored: tuple[Build, bytes]) -> None:
    def read(size: int) -> bytes:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        faiss_io.read_stream(read, stored[0].sha256, "flat", {})


def test_an_older_index_is_given_up_before_another_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = IndexFiles(tmp_path)
    builds = [made(files, seed) for seed in range(MAX_OPEN + 1)]
    read, open_before = faiss_io.read, []

    def counted(path: Path, *arguments: Any) -> Any:
        open_before.append(sum(files.opened(build) is not None for build in builds))
        return read(path, *arguments)

    monkeypatch.setattr(faiss_io, "read", counted)
    for build in builds:
        files.open(build)
    assert open_before == [0, 1, 1]
    assert hashlib.sha256(files.path(builds[0].sha256).read_bytes()).hexdigest() == builds[0].sha256


def test_the_previous_index_is_given_up_when_no_search_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = IndexFiles(tmp_path)
    now, given_back = 0.0, []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(now))
    first, second = made(files, 0), made(files, 1)
    files.open(first)
    files.open(second)
    for at in (30.0, 60.0, 100.0):
        now = at
        assert files.opened(first) and files.opened(second)
    now = 150.0
    assert files.opened(second)
    assert files.opened(first)
    now = 220.0
    assert files.opened(second)
    assert files.opened(first) is None
    assert given_back == [0.0, 0.0, 220.0]
