"""Keeps the files of uploaded pictures in memory, within a limit for all sessions together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import sha256

from app.errors import BadImage


class StoredPicture(bytes):
    """The sha256 of a picture's file, 32 bytes, which stands for the file in a query.

    A class of its own, so that no uploaded file can be taken for one.
    """


class UploadStore:
    """Files by their sha256; the least recently used leave, except the last. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._files: OrderedDict[StoredPicture, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Memory of the files."""
        return self._bytes

    def put(self, data: bytes) -> StoredPicture:
        """Keep a file; returns what stands for it."""
        stored = StoredPicture(sha256(data).digest())
        with self._lock:
            if stored not in self._files:
                self._bytes += len(data)
            self._files[stored] = data
            self._files.move_to_end(stored)
            while self._bytes > self._max_bytes and len(self._files) > 1:
                self._bytes -= len(self._files.popitem(last=False)[1])
        return stored

    def file(self, picture: bytes) -> bytes:
        """The file of a stored picture; other bytes are returned as they are.

        Raises BadImage if it was given up for later ones.
        """
        if not isinstance(picture, StoredPicture):
            return picture
        with self._lock:
            data = self._files.get(picture)
            if data is not None:
                self._files.move_to_end(picture)
                return data
        raise BadImage(
            "This photo is no longer kept here, because many others came since. Upload it again."
        )
