"""Finds the original of an ingested picture by its name and content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from app.errors import BadImage, BadSource
from app.images.decoding import ImageLimits, decode
from app.images.url import is_address
from ingest.local_files import LocalPictures
from ingest.picture_reader import PictureReader


class Originals:
    """Finds pictures below some folders, and with `remote` on the web; a picture whose content has
    changed does not count."""

    def __init__(
        self,
        folders: Sequence[Path],
        limits: ImageLimits,
        input_side: int | None,
        remote: PictureReader | None = None,
    ) -> None:
        self._folders = [LocalPictures(folder, max_bytes=limits.max_bytes) for folder in folders]
        self._remote = remote
        self._limits = limits
        self._input_side = input_side

    def find(self, sha256: bytes, names: Sequence[str]) -> Image.Image:
        """The picture with this sha256, in a file with one of these names. Raises BadImage."""
        reason = "no product shows it"
        for name in names:
            for reader in self._readers(name):
                try:
                    data = reader.read(name)
                except BadImage as exc:
                    reason = str(exc)
                    continue
                if hashlib.sha256(data).digest() == sha256:
                    return decode(data, self._limits, at_least=self._input_side)
                reason = f"{name!r} was changed since it was ingested"
        raise BadImage(reason)

    def _readers(self, name: str) -> Sequence[PictureReader]:
        return [self._remote] if self._remote and is_address(name) else self._folders


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


def check_folders(folders: Sequence[Path], sources: Sequence[str]) -> None:
    """Raise BadSource if there is no folder, and no source that is a web address."""
    if not folders and not any(is_address(source) for source in sources):
        raise BadSource(
            "The folder of the pictures is not known: the sources of earlier ingests no longer "
            "exist. Name it with --images."
        )
