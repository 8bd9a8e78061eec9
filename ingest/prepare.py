"""From the rows of a source to entries with new pictures: fetch, hash, look up, decode.

The bytes of a picture are read once. What does not fit in memory until it is known to be new is
read again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat

from PIL import Image

from app.catalog.batch_write import ProductEntry
from app.catalog.service import CatalogService
from app.encoders.preprocessing import shrink
from app.errors import BadImage
from app.images.decoding import ImageLimits, decode_with_size
from app.images.thumbnails import thumbnail
from app.types import PictureData, PictureRef, Vector
from ingest.encoder_set import EncoderSet, Inputs, MaintainedEncoders
from ingest.local_files import LocalPictures
from ingest.sources import SourceReject, SourceRow

DECODERS = 8
"""Threads that read and decode at most. Each may hold a large picture, and at four milliseconds of
work a picture so many keep up with encoders several times as fast as those that were measured."""
FILE_BYTES = 64 << 20
"""Bytes of files that are kept until it is known which of them are new."""
INPUT_BYTES = 64 << 20
"""Bytes of pictures, as the networks read them, that a chunk holds; three are in memory."""


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture the model has no embedding of yet; `inputs` is None where memory was short."""

    data: PictureData
    name: str
    inputs: Inputs | None


@dataclass(frozen=True, slots=True)
class _File:
    """A file's sha256, and its bytes where memory was not short."""

    sha256: bytes
    data: bytes | None


class _Budget:
    """Bytes that may be held; what does not fit is read or made later."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        with self._lock:
            fits = count <= self._left
            self._left -= count if fits else 0
        return fits


EncodedPictures = Mapping[int, Mapping[bytes, Vector]]
"""Vectors by model (id) and sha256."""


@dataclass(slots=True)
class Chunk:
    """Some rows of a source, ready to be encoded and written.

    `fleet` are the models of its new pictures, `encoded` their vectors when they are there.
    `refused_rows` of the rows became no entry; `rejects` says why, and which pictures were bad.
    """

    rows: Sequence[SourceRow | SourceReject]
    fleet: EncoderSet
    entries: list[ProductEntry] = field(default_factory=list)
    new: dict[bytes, NewPicture] = field(default_factory=dict)
    rejects: list[SourceReject] = field(default_factory=list)
    refused_rows: int = 0
    encoded: list[Future[EncodedPictures]] = field(default_factory=list)


class Preparer:
    """Prepares chunks with a few threads; Pillow decodes without holding Python's lock."""

    def __init__(
        self,
        catalog: CatalogService,
        towers: MaintainedEncoders,
        pictures: LocalPictures,
        limits: ImageLimits,
    ) -> None:
        self._catalog = catalog
        self._towers = towers
        self._pictures = pictures
        self._limits = limits
        self._threads = ThreadPoolExecutor(min(DECODERS, os.cpu_count() or 1), "decode")

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def prepare(
        self, rows: Sequence[SourceRow | SourceReject], coming: AbstractSet[bytes] = frozenset()
    ) -> Chunk:
        """Entries for the rows whose pictures are good, and rejects for the rest.

        `coming` are pictures (sha256) that will be stored before this chunk is.
        """
        fleet = self._towers.now
        names = sorted({name for row in rows if isinstance(row, SourceRow) for name in row.images})
        budget = _Budget(FILE_BYTES)
        files = dict(zip(names, self._threads.map(self._fetch, names, repeat(budget)), strict=True))
        new, damaged = self._decode_new(files, fleet, coming)
        chunk = Chunk(rows, fleet, new=new)
        hashes = {name: _hash(file) for name, file in files.items()} | damaged
        for row in rows:
            if isinstance(row, SourceReject):
                chunk.rejects.append(row)
                chunk.refused_rows += 1
            else:
                _place(chunk, row, hashes)
        return chunk

    def inputs(self, new: NewPicture, fleet: EncoderSet) -> Inputs:
        """The picture as the fleet reads it, read once more where memory was short.

        Raises BadImage.
        """
        if new.inputs is not None:
            return new.inputs
        file = _File(new.data.sha256, None)
        return fleet.prepare(self._read(file, new.name, fleet.input_side)[0])

    def _decode_new(
        self, files: Mapping[str, _File | BadImage], fleet: EncoderSet, coming: AbstractSet[bytes]
    ) -> tuple[dict[bytes, NewPicture], dict[str, bytes | BadImage]]:
        """The pictures without an embedding, and by name those that turned out to be bad."""
        by_hash = {file.sha256: (file, name) for name, file in files.items()
                   if isinstance(file, _File)}  # fmt: skip
        embedded = self._catalog.known(sorted(by_hash), fleet.model)
        wanted = [sha for sha in by_hash if not embedded.get(sha) and sha not in coming]
        budget = _Budget(INPUT_BYTES)
        tried = self._threads.map(
            lambda sha: self._decode(*by_hash[sha], fleet, budget), wanted
        )  # fmt: skip
        done = dict(zip(wanted, tried, strict=True))
        new = {sha: found for sha, found in done.items() if isinstance(found, NewPicture)}
        bad = {sha: found for sha, found in done.items() if isinstance(found, BadImage)}
        hashes = {name: _hash(file) for name, file in files.items()}
        return new, {name: bad[sha] for name, sha in hashes.items() if sha in bad}

    def _fetch(self, name: str, budget: _Budget) -> _File | BadImage:
        try:
            data = self._pictures.read(name)
        except BadImage as exc:
            return exc
        return _File(hashlib.sha256(data).digest(), data if budget.take(len(data)) else None)

    def _decode(
        self, file: _File, name: str, fleet: EncoderSet, budget: _Budget
    ) -> NewPicture | BadImage:
        try:
            picture, size = self._read(file, name, fleet.input_side)
        except BadImage as exc:
            return exc
        stored = PictureData(file.sha256, *size, thumbnail(picture, scale=shrink))
        inputs = fleet.prepare(picture)
        fits = budget.take(sum(each.nbytes for each in inputs))
        return NewPicture(stored, name, inputs if fits else None)

    def _read(
        self, file: _File, name: str, side: int | None
    ) -> tuple[Image.Image, tuple[int, int]]:
        data = file.data
        if data is None:
            data = self._pictures.read(name)
            if hashlib.sha256(data).digest() != file.sha256:
                raise BadImage("the file was changed while it was read; run the ingest again")
        return decode_with_size(data, self._limits, at_least=side)


def _hash(file: _File | BadImage) -> bytes | BadImage:
    return file.sha256 if isinstance(file, _File) else file


def _place(chunk: Chunk, row: SourceRow, hashes: Mapping[str, bytes | BadImage]) -> None:
    """Make an entry of the row, without its bad pictures; refuse it if no picture is left."""
    good: dict[bytes, PictureRef] = {}
    for name in row.images:
        found = hashes[name]
        if isinstance(found, bytes):
            good.setdefault(found, PictureRef(found, name))
        else:
            chunk.rejects.append(SourceReject(row.line, row.product.sku, str(found), name))
    if row.images and not good:
        chunk.refused_rows += 1
    else:
        chunk.entries.append(ProductEntry(row.product, tuple(good.values())))
