"""Finds the original file of an ingested picture by its name and content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from app.errors import BadImage, BadSource
from app.images.decoding import ImageLimits, decode
from ingest.local_files import LocalPictures


class Originals:
    """Finds pictures below some folders; a file whose content has changed does not count."""

    def __init__(
        self, folders: Sequence[Path], limits: ImageLimits, input_side: int | None
    ) -> None:
        self._folders = [LocalPictures(folder, max_bytes=limits.max_bytes) for folder in folders]
        self._limits = limits
        self._input_side = input_side

    def find(self, sha256: bytes, names: Sequence[str]) -> Image.Image:
        """The picture with this sha256, in a file with one of these names. Raises BadImage."""
        reason = "no product shows it"
        for name in names:
            for folder in self._folders:
                try:
                    data = folder.read(name)
                except BadImage as exc:
                    reason = str(exc)
                    continue
                if hashlib.sha256(data).digest() == sha256:
                    return decode(data, self._limits, at_least=self._input_side)
                reason = f"{name!r} was changed since it was ingested"
        raise BadImage(reason)


def folders_of(sources: Sequence[str]) -> list[Path]:
    """The existing folders from which earlier ingests read their pictures, each once.

    A source is a folder of pictures, or a file in that folder.
    """
    folders: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        folder = path if path.is_dir() else path.parent
        if path.exists() and folder.is_dir():
            folders[folder] = None
    return list(folders)


def check_folders(folders: Sequence[Path]) -> None:
    """Raise BadSource if there is no folder."""
    if not folders:
        raise BadSource(
            "The folder of the pictures is not known: the sources of earlier ingests no longer "
            "exist. Name it with --images."
        )
