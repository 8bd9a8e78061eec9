"""Reads picture files named by a source: only below one folder, and up to a size limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from app.errors import BadImage, BadSource
from ingest.picture_reader import PictureReader

# With O_PATH, a folder need not be readable to open files in it.
_FOLDER = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)


class LocalPictures(PictureReader):
    """The folder of a source's pictures. Safe to use from several threads.

    Nothing outside it is ever read: not through `..`, an absolute path or a symbolic link, not
    even one that is created while a picture is being opened.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        try:
            self._root = folder.resolve(strict=True)
        except (OSError, RuntimeError) as exc:
            raise BadSource(
                f"The folder of the pictures, {folder}, cannot be read. Name another with --images."
            ) from exc
        if not self._root.is_dir():
            raise BadSource(f"{folder} is not a folder of pictures.")
        self._max_bytes = max_bytes

    def read(self, name: str) -> bytes:
        """The bytes of the picture called `name` in the source. Raises BadImage with the reason."""
        path = self._inside(name)
        try:
            with open(path, "rb", opener=self._open) as file:
                self._check(name, os.fstat(file.fileno()))
                data = file.read(self._max_bytes + 1)
        except FileNotFoundError as exc:
            raise BadImage(f"there is no file {name!r} in {self._root}") from exc
        except OSError as exc:
            raise BadImage(f"{name!r} cannot be read: {exc.strerror or exc}") from exc
        if len(data) > self._max_bytes:
            raise BadImage(f"{name!r} grew beyond {self._max_bytes:,} bytes while it was read")
        return data

    def _check(self, name: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise BadImage(f"{name!r} is not a file")
        if status.st_size > self._max_bytes:
            raise BadImage(
                f"{name!r} has {status.st_size:,} bytes; up to {self._max_bytes:,} are read"
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

    def _open(self, path: str, flags: int) -> int:
        """Open a resolved path from the root down, one name at a time, without following links.

        O_NONBLOCK: a named pipe in the place of a picture is not waited for.
        """
        *parents, last = (self._root, *Path(path).relative_to(self._root).parts)
        folder: int | None = None
        try:
            for name in parents:
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                if folder is not None:
                    os.close(folder)
                folder = inner
            return os.open(last, flags | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            if folder is not None:
                os.close(folder)
