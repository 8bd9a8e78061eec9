"""A file or a folder appears under its name complete, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app import atomic_files


class Steps:
    """What reaches the disk, in order: `file` and `folder` for fsync, `rename`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        fsync, replace = os.fsync, Path.replace

        def seen_fsync(descriptor: int) -> None:
            folder = Path(f"/proc/self/fd/{descriptor}").resolve().is_dir()
            self.seen.append("folder" if folder else "file")
            fsync(descriptor)

        def seen_replace(path: Path, target: Path) -> Path:
            self.seen.append("rename")
            return replace(path, target)

        monkeypatch.setattr(os, "fsync", seen_fsync)
        monkeypatch.setattr(Path, "replace", seen_replace)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def test_a_durable_write_flushes_the_file_then_renames_then_flushes_the_folder(
    tmp_path: Path, steps: Steps
) -> None:
    atomic_files.write_bytes(tmp_path / "new" / "file", b"one ", b"two")
    assert (tmp_path / "new" / "file").read_bytes() == b"one two"
    assert steps.seen == ["file", "rename", "folder"]


def test_a_write_that_need_not_be_durable_only_renames(tmp_path: Path, steps: Steps) -> None:
    atomic_files.write_bytes(tmp_path / "file", b"data", durable=False)
    assert (tmp_path / "file").read_bytes() == b"data"
    assert steps.seen == ["rename"]


def test_a_mode_is_given_before_the_name(tmp_path: Path) -> None:
    atomic_files.write_bytes(tmp_path / "file", b"data", mode=0o604)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_files.replace(target) as file:
        file.write(b"half of the new")
        raise error
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_of_the_rename_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic_files.write_bytes(tmp_path / "file", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_draft_that_is_not_published_is_removed(tmp_path: Path) -> None:
    with atomic_files.draft(tmp_path, suffix=".tmp") as draft:
        draft.file.write(b"data")
        assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    assert list(tmp_path.iterdir()) == []


def test_a_draft_is_flushed_once(tmp_path: Path, steps: Steps) -> None:
    with atomic_files.draft(tmp_path) as draft:
        draft.finish()
        draft.publish(tmp_path / "named later")
    assert steps.seen == ["file", "rename", "folder"]
    assert [path.name for path in tmp_path.iterdir()] == ["named later"]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path: Path, steps: Steps) -> None:
    target = tmp_path / "parent" / "folder"
    with atomic_files.replace_folder(target, mode=0o700) as draft:
        (draft / "file").write_bytes(b"data")
        assert not target.exists()
    assert (target / "file").read_bytes() == b"data"
    assert target.stat().st_mode & 0o777 == 0o700
    assert steps.seen == ["folder"]


def test_a_folder_that_was_not_filled_vanishes(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        atomic_files.replace_folder(tmp_path / "folder", mode=0o700) as draft,
    ):
        (draft / "file").write_bytes(b"data")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
