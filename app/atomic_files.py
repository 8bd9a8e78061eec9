"""Crash-safe writes: a file or folder gets its name when it is complete, or never.

The content is written under a temporary name in the folder of the target, which is then replaced by
a rename. Readers of the target see the old content or the new, also when the writer is killed. What
was not renamed is removed at the end of the block; after a kill it stays, under its temporary name.

`durable` extends this to a loss of power: the content is flushed to disk before the rename, and the
folder after it. Without it the target may then be truncated, which is enough where readers verify
the content or the file can be made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

SUFFIX = ".part"


class Draft:
    """A new file that is open for writing under a temporary name, until it is published."""

    def __init__(self, path: Path, file: BinaryIO, durable: bool) -> None:
        self.path = path
        self.file = file
        self._durable = durable

    def finish(self) -> None:
        """Close the file, with its content on disk if it is durable. Raises OSError."""
        if self.file.closed:
            return
        self.file.flush()
        if self._durable:
            os.fsync(self.file.fileno())
        self.file.close()

    def publish(self, target: Path, *, mode: int | None = None) -> None:
        """Finish the file and rename it to `target`, which is in the same folder and is replaced.

        `mode` are the permissions; None leaves those of a new file. Raises OSError.
        """
        self.finish()
        if mode is not None:
            self.path.chmod(mode)
        self.path.replace(target)
        if self._durable:
            sync_folder(target.parent)


@contextmanager
def draft(folder: Path, *, suffix: str = SUFFIX, durable: bool = True) -> Iterator[Draft]:
    """A new file in `folder`, which is made if it is missing; removed unless it was published.

    For a target whose name is known only once the content is; else see `replace`. The temporary
    name ends in `suffix`. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid4().hex}{suffix}"
    try:
        with path.open("xb") as file:
            yield Draft(path, file, durable)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def replace(target: Path, *, durable: bool = True, mode: int | None = None) -> Iterator[BinaryIO]:
    """A file to write to, which replaces `target` if the block ends without an error.

    The folder is made if it is missing. Raises OSError; then `target` is unchanged.
    """
    with draft(target.parent, durable=durable) as new:
        yield new.file
        new.publish(target, mode=mode)


def write_bytes(target: Path, *parts: bytes, durable: bool = True, mode: int | None = None) -> None:
    """Replace the content of `target` by these parts, one after the other. Raises OSError."""
    with replace(target, durable=durable, mode=mode) as file:
        file.writelines(parts)


@contextmanager
def replace_folder(target: Path, *, mode: int) -> Iterator[Path]:
    """A new folder to fill, which becomes `target` if the block ends without an error.

    `target` must not exist, or be an empty folder. The caller flushes the files and the folder
    itself (`sync_folder`). `mode` are the permissions from the start. Raises OSError.
    """
    path = target.with_name(f".{target.name}.{uuid4().hex}{SUFFIX}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=mode)
        yield path
        path.rename(target)
        sync_folder(target.parent)
    finally:
        with suppress(OSError):
            shutil.rmtree(path)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
