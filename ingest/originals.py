"""Originals: finds again the file of a picture that was ingested, by its name and its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from app.errors import BadImage, BadSource
from app.images.decoding import ImageLimits, decode
from ingest.local_files import LocalPictures


class Originals:
    """Looks for pictures below some folders; what was changed since is not taken for the same."""

    def __init__(
        self, folders: Sequence[Path], limits: ImageLimits, input_side: int | None
    ) -> None:
        self._folders = [LocalPictures(folder, max_bytes=limits.max_bytes) for folder in folders]
        self._limits = limits
        self._input_side = input_side

    def find(self, sha256: bytes, places: Sequence[str]) -> Image.Image:
        """The picture with this sha256 under one of its names. Raises BadImage."""
        reason = "no product shows it"
        for place in places:
            for folder in self._folders:
                try:
                    data = folder.read(place)
                except BadImage as exc:
                    reason = str(exc)
                    continue
                if hashlib.sha256(data).digest() == sha256:
                    return decode(data, self._limits, at_least=self._input_side)
                reason = f"{place!r} was changed since it was ingested"
        raise BadImage(reason)


def folders_of(sources: Sequence[str]) -> list[Path]:
    """The folders that earlier ingests took their pictures from, as far as they are here.

    A source is a folder of pictures, or a file beside them.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        folder = path if path.is_dir() else path.parent
        if path.exists() and folder.is_dir():
            found[folder] = None
    return list(found)


def check_folders(folders: Sequence[Path]) -> None:
    """Raise BadSource where there is nowhere to look."""
    if not folders:
        raise BadSource(
            "The folder of the pictures is not known: what was ingested is not where it was. Name "
            "it with --images."
        )
