"""PictureReader: where the pictures of a source come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FetchedPicture:
    """The sha256 (32 bytes) of a picture file; its bytes, or None if they were not transferred."""

    sha256: bytes
    data: bytes | None


class PictureReader:
    """Reads pictures by the names that a source gives them. Safe to use from several threads."""

    def announce(self, names: Sequence[str]) -> None:
        """Pictures that will be fetched next; a reader may begin with them."""

    def fetch(self, name: str) -> FetchedPicture:
        """A picture that may be stored already. Raises BadImage with the reason."""
        data = self.read(name)
        return FetchedPicture(hashlib.sha256(data).digest(), data)

    def read(self, name: str) -> bytes:
        """The bytes of a picture. Raises BadImage with the reason."""
        raise NotImplementedError

    def counts(self) -> tuple[int, int]:
        """Pictures that were downloaded, and that had not changed since an earlier run."""
        return 0, 0

    def stop(self) -> None:
        """No picture is needed any more: what waits for one is refused, so that a run can end."""

    def close(self) -> None:
        """Release what the reader holds; it is not used afterwards."""
