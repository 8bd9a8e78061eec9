"""From the rows of a source to entries with decoded pictures: fetch, hash, look up, decode.

Bytes are read twice, once to know the picture and once more if it is new, so that no more of them
are held than there are threads.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat

from PIL import Image

from app.catalog import CatalogService, Entry
from app.errors import BadImage
from app.images import ImageLimits, decode_with_size, thumbnail
from app.values import Model, PictureData, PictureRef
from ingest.fetch import Pictures
from ingest.sources import Reject, Row

DECODED_BYTES = 128 << 20
"""Bytes of decoded pictures that a chunk holds; two chunks are in memory at a time."""


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture the model has no embedding of yet; `picture` is None where memory was short."""

    data: PictureData
    name: str
    picture: Image.Image | None


class _Budget:
    """Bytes that the decoded pictures of a chunk may take; what does not fit is decoded later."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._lock = threading.Lock()

    def take(self, picture: Image.Image) -> bool:
        with self._lock:
            fits = decoded_bytes(picture) <= self._left
            self._left -= decoded_bytes(picture) if fits else 0
        return fits


@dataclass(slots=True)
class Chunk:
    """Some rows of a source, ready to be encoded and written.

    `refused_rows` of the rows became no entry; `rejects` says why, and which pictures were bad.
    """

    rows: Sequence[Row | Reject]
    entries: list[Entry] = field(default_factory=list)
    new: dict[bytes, NewPicture] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    refused_rows: int = 0


class Preparer:
    """Prepares chunks with a few threads; Pillow decodes without holding Python's lock."""

    def __init__(
        self,
        catalog: CatalogService,
        model: Model,
        pictures: Pictures,
        limits: ImageLimits,
        input_side: int | None,
    ) -> None:
        self._catalog = catalog
        self._model = model
        self._pictures = pictures
        self._limits = limits
        self._input_side = input_side
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "decode")

    def turn_to(self, model: Model, input_side: int | None) -> None:
        """Prepare pictures for another model from now on."""
        self._model, self._input_side = model, input_side

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def prepare(self, rows: Sequence[Row | Reject]) -> Chunk:
        """Entries for the rows whose pictures are good, and rejects for the rest."""
        names = sorted({name for row in rows if isinstance(row, Row) for name in row.images})
        hashes = dict(zip(names, self._threads.map(self._hash, names), strict=True))
        new, damaged = self._decode_new(hashes)
        chunk = Chunk(rows, new=new)
        for row in rows:
            if isinstance(row, Reject):
                chunk.rejects.append(row)
                chunk.refused_rows += 1
            else:
                _place(chunk, row, {**hashes, **damaged})
        return chunk

    def _decode_new(
        self, hashes: Mapping[str, bytes | BadImage]
    ) -> tuple[dict[bytes, NewPicture], dict[str, bytes | BadImage]]:
        """The pictures without an embedding, and by name those that turned out to be bad."""
        by_hash = {sha: name for name, sha in hashes.items() if isinstance(sha, bytes)}
        embedded = self._catalog.known(sorted(by_hash), self._model)
        wanted = [sha for sha in by_hash if not embedded.get(sha)]
        budget = _Budget(DECODED_BYTES)
        names = [by_hash[sha] for sha in wanted]
        tried = self._threads.map(self._decode, wanted, names, repeat(budget))
        done = dict(zip(wanted, tried, strict=True))
        new = {sha: found for sha, found in done.items() if isinstance(found, NewPicture)}
        bad = {sha: found for sha, found in done.items() if isinstance(found, BadImage)}
        damaged = {name: bad[sha] for name, sha in hashes.items() if sha in bad}
        return new, dict(damaged)

    def _hash(self, name: str) -> bytes | BadImage:
        try:
            return hashlib.sha256(self._pictures.read(name)).digest()
        except BadImage as exc:
            return exc

    def picture(self, new: NewPicture) -> Image.Image:
        """The decoded picture, read once more where memory was short; raises BadImage."""
        return new.picture or self._read(new.data.sha256, new.name)[0]

    def _decode(self, sha256: bytes, name: str, budget: _Budget) -> NewPicture | BadImage:
        try:
            picture, size = self._read(sha256, name)
        except BadImage as exc:
            return exc
        stored = PictureData(sha256, *size, thumbnail(picture))
        return NewPicture(stored, name, picture if budget.take(picture) else None)

    def _read(self, sha256: bytes, name: str) -> tuple[Image.Image, tuple[int, int]]:
        data = self._pictures.read(name)
        if hashlib.sha256(data).digest() != sha256:
            raise BadImage("the file was changed while it was read; run the ingest again")
        return decode_with_size(data, self._limits, at_least=self._input_side)


def decoded_bytes(picture: Image.Image) -> int:
    """What a picture of mode RGB takes in memory."""
    return 4 * picture.width * picture.height  # Pillow keeps a fourth byte beside the three


def _place(chunk: Chunk, row: Row, hashes: Mapping[str, bytes | BadImage]) -> None:
    """Make an entry of the row, without its bad pictures; refuse it if no picture is left."""
    good: dict[bytes, PictureRef] = {}
    for name in row.images:
        found = hashes[name]
        if isinstance(found, bytes):
            good.setdefault(found, PictureRef(found, name))
        else:
            chunk.rejects.append(Reject(row.line, row.product.sku, str(found), name))
    if row.images and not good:
        chunk.refused_rows += 1
    else:
        chunk.entries.append(Entry(row.product, tuple(good.values())))
