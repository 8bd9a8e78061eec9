"""The bytes of a picture that a source names: from below one folder, and no more than allowed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from app.errors import BadImage, BadSource


class Pictures:
    """The folder that a source's pictures lie in. Safe to use from several threads.

    Nothing outside it is ever read: not through `..`, not through an absolute path, not through a
    symbolic link.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        try:
            self._root = folder.resolve(strict=True)
        except OSError as exc:
            raise BadSource(f"The folder of the pictures, {folder}, cannot be read.") from exc
        if not self._root.is_dir():
            raise BadSource(f"{folder} is not a folder of pictures.")
        self._max_bytes = max_bytes

    def read(self, name: str) -> bytes:
        """The bytes of the picture called `name` in the source. Raises BadImage with the reason."""
        path = self._inside(name)
        try:
            with open(path, "rb", opener=_without_waiting) as file:
                self._check(name, os.fstat(file.fileno()))
                data = file.read(self._max_bytes + 1)
        except FileNotFoundError as exc:
            raise BadImage(f"there is no file {name!r} in {self._root}") from exc
        except OSError as exc:
            raise BadImage(f"{name!r} cannot be read: {exc.strerror or exc}") from exc
        if len(data) > self._max_bytes:
            raise BadImage(f"{name!r} grew beyond {self._max_bytes:,} bytes while it was read")
        return data

    def _check(self, name: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise BadImage(f"{name!r} is not a file")
        if found.st_size > self._max_bytes:
            raise BadImage(
                f"{name!r} has {found.st_size:,} bytes; up to {self._max_bytes:,} are read"
            )

    def _inside(self, name: str) -> Path:
        if "://" in name:
            raise BadImage(f"{name!r} is a web address; download the picture and name its file")
        try:
            path = (self._root / name).resolve()
        except (OSError, ValueError, RuntimeError) as exc:
            raise BadImage(f"{name!r} is not the name of a file: {exc}") from exc
        if not path.is_relative_to(self._root):
            raise BadImage(f"{name!r} lies outside {self._root}; only files below it are read")
        return path


def _without_waiting(path: str, flags: int) -> int:
    """Open, but do not wait for the other end of a pipe that lies where a picture should be."""
    return os.open(path, flags | os.O_NONBLOCK)
