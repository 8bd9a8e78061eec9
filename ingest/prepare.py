"""Turns rows into product entries and new pictures: reads, hashes, looks up and decodes files.

A file is read once, or twice if memory is short until it is known whether its picture is new.
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

from app.catalog.entries import ProductEntry
from app.catalog.service import CatalogService
from app.encoders.preprocessing import shrink
from app.errors import BadImage
from app.images.colours import colours_of_thumbnail
from app.images.decoding import ImageLimits, decode_with_size
from app.images.thumbnails import thumbnail
from app.types import PictureData, PictureRef, Vector
from ingest.encoder_set import EncoderSet, Inputs, MaintainedEncoders
from ingest.picture_reader import FetchedPicture, PictureReader
from ingest.sources import SourceReject, SourceRow

DECODERS = 8
"""Maximum of threads that read and decode. Each may hold a large picture; at 4 ms per picture,
eight keep up with encoders several times as fast as the measured ones."""
FILE_BYTES = 64 << 20
"""Bytes of files kept in memory until it is known which pictures are new."""
INPUT_BYTES = 64 << 20
"""Bytes of encoder inputs that a chunk holds; three chunks are in memory."""


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture without an embedding of the active model; `inputs` is None if memory was short."""

    data: PictureData
    name: str
    inputs: Inputs | None


class _Budget:
    """A number of bytes that may be held in memory, shared by threads."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        with self._lock:
            fits = count <= self._left
            self._left -= count if fits else 0
        return fits


EncodedPictures = Mapping[int, Mapping[bytes, Vector]]
"""Vectors by model id and sha256."""


@dataclass(slots=True)
class Chunk:
    """Some rows of a source, ready to be encoded and written.

    `encoders` encode its new pictures, `encoding` are the futures of their vectors. `refused_rows`
    is the number of rows without an entry; `rejects` has their reasons and those of bad pictures.
    """

    rows: Sequence[SourceRow | SourceReject]
    encoders: EncoderSet
    entries: list[ProductEntry] = field(default_factory=list)
    new: dict[bytes, NewPicture] = field(default_factory=dict)
    rejects: list[SourceReject] = field(default_factory=list)
    refused_rows: int = 0
    encoding: list[Future[EncodedPictures]] = field(default_factory=list)


class Preparer:
    """Prepares chunks in threads; Pillow releases the GIL while it decodes."""

    def __init__(
        self,
        catalog: CatalogService,
        encoders: MaintainedEncoders,
        pictures: PictureReader,
        limits: ImageLimits,
        threads: int | None = None,
    ) -> None:
        """`threads` is how many read and decode; None: as many as there are cores."""
        self._catalog = catalog
        self._encoders = encoders
        self._pictures = pictures
        self._limits = limits
        self._threads = ThreadPoolExecutor(min(DECODERS, threads or os.cpu_count() or 1), "decode")

    def download_counts(self) -> tuple[int, int]:
        """Pictures that were downloaded, and that had not changed since an earlier run."""
        return self._pictures.counts()

    def stop(self) -> None:
        """Let chunks that are being prepared end soon, without their pictures."""
        self._pictures.stop()

    def close(self) -> None:
        """Cancel what is queued, wait for the threads to end, and close the reader."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._pictures.close()

    def prepare(
        self, rows: Sequence[SourceRow | SourceReject], pending: AbstractSet[bytes] = frozenset()
    ) -> Chunk:
        """Entries for the rows whose pictures are good, and rejects for the others.

        `pending` are the sha256 of pictures that will be stored before this chunk is.
        """
        encoders = self._encoders.current
        names = sorted({name for row in rows if isinstance(row, SourceRow) for name in row.images})
        self._pictures.announce(names)
        budget = _Budget(FILE_BYTES)
        files = dict(zip(names, self._threads.map(self._fetch, names, repeat(budget)), strict=True))
        new, damaged = self._decode_new(files, encoders, pending)
        chunk = Chunk(rows, encoders, new=new)
        hashes = {name: _hash(file) for name, file in files.items()} | damaged
        for row in rows:
            if isinstance(row, SourceReject):
                chunk.rejects.append(row)
                chunk.refused_rows += 1
            else:
                _add_entry(chunk, row, hashes)
        return chunk

    def inputs(self, new: NewPicture, encoders: EncoderSet) -> Inputs:
        """The picture preprocessed for the encoders, from its file again if memory was short.

        Raises BadImage.
        """
        if new.inputs is not None:
            return new.inputs
        file = FetchedPicture(new.data.sha256, None)
        return encoders.prepare(self._read(file, new.name, encoders.input_side)[0])

    def _decode_new(
        self,
        files: Mapping[str, FetchedPicture | BadImage],
        encoders: EncoderSet,
        pending: AbstractSet[bytes],
    ) -> tuple[dict[bytes, NewPicture], dict[str, bytes | BadImage]]:
        """The pictures without an embedding by sha256, and by name the errors of bad ones."""
        by_hash = {file.sha256: (file, name) for name, file in files.items()
                   if isinstance(file, FetchedPicture)}  # fmt: skip
        embedded = self._catalog.known(sorted(by_hash), encoders.model)
        missing = [sha for sha in by_hash if not embedded.get(sha) and sha not in pending]
        budget = _Budget(INPUT_BYTES)
        results = self._threads.map(
            lambda sha: self._decode(*by_hash[sha], encoders, budget), missing
        )
        decoded = dict(zip(missing, results, strict=True))
        new = {sha: result for sha, result in decoded.items() if isinstance(result, NewPicture)}
        bad = {sha: result for sha, result in decoded.items() if isinstance(result, BadImage)}
        hashes = {name: _hash(file) for name, file in files.items()}
        return new, {name: bad[sha] for name, sha in hashes.items() if sha in bad}

    def _fetch(self, name: str, budget: _Budget) -> FetchedPicture | BadImage:
        try:
            file = self._pictures.fetch(name)
        except BadImage as exc:
            return exc
        fits = file.data is not None and budget.take(len(file.data))
        return file if fits else FetchedPicture(file.sha256, None)

    def _decode(
        self, file: FetchedPicture, name: str, encoders: EncoderSet, budget: _Budget
    ) -> NewPicture | BadImage:
        try:
            picture, size = self._read(file, name, encoders.input_side)
        except BadImage as exc:
            return exc
        small = thumbnail(picture, scale=shrink)
        stored = PictureData(file.sha256, *size, small, colours_of_thumbnail(small))
        inputs = encoders.prepare(picture)
        fits = budget.take(sum(each.nbytes for each in inputs))
        return NewPicture(stored, name, inputs if fits else None)

    def _read(
        self, file: FetchedPicture, name: str, side: int | None
    ) -> tuple[Image.Image, tuple[int, int]]:
        data = file.data
        if data is None:
            data = self._pictures.read(name)
            if hashlib.sha256(data).digest() != file.sha256:
                raise BadImage("the file was changed while it was read; run the ingest again")
        return decode_with_size(data, self._limits, at_least=side)


def _hash(file: FetchedPicture | BadImage) -> bytes | BadImage:
    return file.sha256 if isinstance(file, FetchedPicture) else file


def _add_entry(chunk: Chunk, row: SourceRow, hashes: Mapping[str, bytes | BadImage]) -> None:
    """Add an entry for the row with its good pictures; refuse the row if all pictures are bad."""
    good: dict[bytes, PictureRef] = {}
    unread: list[tuple[int, str]] = []
    for name in row.images:
        result = hashes[name]
        if isinstance(result, bytes):
            good.setdefault(result, PictureRef(result, name))
        else:
            unread.append((len(good), name))
            chunk.rejects.append(SourceReject(row.line, row.product.sku, str(result), name))
    if row.images and not good:
        chunk.refused_rows += 1
    else:
        pictures = tuple(good.values())
        chunk.entries.append(ProductEntry(row.product, pictures, row.given, tuple(unread)))
