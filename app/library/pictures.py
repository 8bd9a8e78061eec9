"""Pictures as a program gives them: bytes, paths and web addresses."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.bootstrap import App
from app.errors import BadImage, BadInput
from app.images.url import is_address
from ingest.open_source import download_cache, remote_pictures
from ingest.picture_reader import FetchedPicture, PictureReader
from ingest.remote_pictures import RemotePictures

Picture = bytes | str | os.PathLike[str]
"""A picture file: its bytes, its path, or its address (http:// or https://)."""


def read_picture(app: App, picture: Picture) -> bytes:
    """The bytes of a picture file. Raises BadImage if it cannot be read, BadInput for another
    type."""
    match picture:
        case bytes():
            return picture
        case str() if is_address(picture):
            return app.web.read(picture)
        case str() | os.PathLike():
            return _read_file(Path(picture), app.settings.max_image_bytes)
    raise BadInput(f"A picture is bytes, a path or an address, not {type(picture).__name__}.")


def _read_file(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise BadImage(f"The picture {path} cannot be read: {reason}.") from exc
    if len(data) > limit:
        raise BadImage(f"The picture {path} has more than {limit:,} bytes; make it smaller.")
    return data


class GivenPictures(PictureReader):
    """The pictures of the products that a program passes to `upsert`.

    Bytes are stored under the name `sha256:…`, so that the same picture has the same name again.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._bytes: dict[str, bytes] = {}
        self._opened: RemotePictures | None = None

    def named(self, product: Mapping[str, Any]) -> dict[str, Any]:
        """The product with names for its pictures. Raises BadInput for arguments of other types."""
        if not isinstance(product, Mapping):
            raise BadInput(f"A product is a mapping, not {type(product).__name__}.")
        named = dict(product)
        for key, value in product.items():
            if str(key).strip().lower() == "images" and value is not None:
                pictures = [value] if isinstance(value, bytes | str | os.PathLike) else value
                named[key] = [self._name(picture) for picture in pictures]
        return named

    def _name(self, picture: Picture) -> str:
        if isinstance(picture, bytes):
            name = f"sha256:{hashlib.sha256(picture).hexdigest()}"
            self._bytes[name] = picture
            return name
        if isinstance(picture, str) and is_address(picture):
            return picture
        if isinstance(picture, str | os.PathLike):
            return str(Path(picture).absolute())
        raise BadInput(f"A picture is bytes, a path or an address, not {type(picture).__name__}.")

    def announce(self, names: Sequence[str]) -> None:
        """Begin to download the addresses among these names."""
        if any(is_address(name) for name in names):
            self._remote().announce(names)

    def fetch(self, name: str) -> FetchedPicture:
        """A picture that may be stored already. Raises BadImage with the reason."""
        return self._remote().fetch(name) if is_address(name) else super().fetch(name)

    def read(self, name: str) -> bytes:
        """The bytes of a picture. Raises BadImage with the reason."""
        if is_address(name):
            return self._remote().read(name)
        return self._bytes[name] if name in self._bytes else read_picture(self._app, name)

    def stop(self) -> None:
        """Refuse the pictures that are waited for."""
        if self._opened is not None:
            self._opened.stop()

    def close(self) -> None:
        """End the downloads."""
        if self._opened is not None:
            self._opened.close()

    def _remote(self) -> RemotePictures:
        """Downloads, opened when the first address is announced, in one thread."""
        if self._opened is None:
            settings = self._app.settings
            self._opened = remote_pictures(settings, download_cache(settings))
        return self._opened
