"""Prepares and encodes the next chunks of a source while the current one is written.

The stages run at the same time on different chunks, of which at most three are in memory: one is
written, one encoded, one prepared.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from app.encoders.torch_threads import set_thread_count, thread_count
from app.types import Vector
from ingest.encoder_set import EncoderSet, Inputs
from ingest.prepare import Chunk, EncodedPictures, NewPicture, Preparer
from ingest.sources import SourceReject, SourceRow

CHUNK_ROWS = 64
CHUNK_PICTURES = 128
"""A chunk ends with the row that reaches either limit."""
ENCODED_AT_ONCE = 16
"""Pictures per batch."""
ENCODED_BYTES = 64 << 20
"""Bytes of inputs at which a batch is encoded before it is full."""

ENCODERS = min(4, os.cpu_count() or 1)
"""Threads that encode, each on its share of the cores; the `streams` of the ingest's `App`. One
batch on all cores is slower, because its parts wait for each other while other threads decode."""

_CHUNKS_AHEAD = 2


class Prefetcher:
    """Prepares and encodes chunks in its own threads; `close` ends them and the preparer's."""

    def __init__(self, preparer: Preparer, threads: int = ENCODERS) -> None:
        self._preparer = preparer
        self._pending: set[bytes] = set()
        self._preparing = ThreadPoolExecutor(1, "prepare")
        self._cores = thread_count()
        share = max(1, self._cores // threads)
        self._encoding = ThreadPoolExecutor(threads, "encode", set_thread_count, (share,))

    def close(self) -> None:
        """Cancel what is queued and wait for the threads to end."""
        self._preparer.stop()
        for threads in (self._preparing, self._encoding):
            threads.shutdown(wait=True, cancel_futures=True)
        self._preparer.close()
        set_thread_count(self._cores)

    def chunks(self, groups: Iterable[Sequence[SourceRow | SourceReject]]) -> Generator[Chunk]:
        """A chunk for each group of rows, in order; mark each as written before taking the next."""
        waiting: deque[Future[Chunk]] = deque()
        for rows in groups:
            waiting.append(self._preparing.submit(self._prepare, rows))
            if len(waiting) > _CHUNKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def restart(self, chunk: Chunk) -> Chunk:
        """A new chunk of the same rows, for one that could not be written."""
        for batch in chunk.encoding:
            batch.cancel()
        self.mark_written(chunk)  # its pictures are no longer pending
        return self._start_encoding(self._preparer.prepare(chunk.rows))

    def mark_written(self, chunk: Chunk) -> None:
        """Remove the chunk's pictures from the pending ones: they are stored."""
        self._pending.difference_update(chunk.new)

    def _prepare(self, rows: Sequence[SourceRow | SourceReject]) -> Chunk:
        # Copied before the database is read: a picture that leaves the set after that is stored.
        chunk = self._preparer.prepare(rows, frozenset(self._pending))
        self._pending.update(chunk.new)
        return self._start_encoding(chunk)

    def _start_encoding(self, chunk: Chunk) -> Chunk:
        """Queue the chunk's new pictures for encoding."""
        new = list(chunk.new.values())
        size = ENCODED_AT_ONCE
        if chunk.encoders.batch_size > CHUNK_PICTURES:  # a graphics card takes them all at once
            size = CHUNK_PICTURES
        for start in range(0, len(new), size):
            batch = new[start : start + size]
            chunk.encoding.append(self._encoding.submit(self._encode, batch, chunk.encoders))
        return chunk

    def _encode(self, batch: Sequence[NewPicture], encoders: EncoderSet) -> EncodedPictures:
        vectors: dict[int, dict[bytes, Vector]] = {model.id: {} for model in encoders.models}
        for inputs in self._portions(batch, encoders):
            for model_id, rows in encoders.encode(list(inputs.values())).items():
                vectors[model_id].update(zip(inputs, rows, strict=True))
        return vectors

    def _portions(
        self, batch: Sequence[NewPicture], encoders: EncoderSet
    ) -> Iterator[dict[bytes, Inputs]]:
        """The inputs of a batch by sha256, split where they exceed ENCODED_BYTES."""
        portion: dict[bytes, Inputs] = {}
        for new in batch:
            portion[new.data.sha256] = self._preparer.inputs(new, encoders)
            if sum(each.nbytes for inputs in portion.values() for each in inputs) > ENCODED_BYTES:
                yield portion
                portion = {}
        if portion:
            yield portion


def in_chunks(rows: Iterable[SourceRow | SourceReject]) -> Iterator[list[SourceRow | SourceReject]]:
    """Groups of CHUNK_ROWS rows, or fewer if they have CHUNK_PICTURES pictures."""
    chunk: list[SourceRow | SourceReject] = []
    pictures = 0
    for row in rows:
        chunk.append(row)
        pictures += len(row.images) if isinstance(row, SourceRow) else 0
        if len(chunk) >= CHUNK_ROWS or pictures >= CHUNK_PICTURES:
            yield chunk
            chunk, pictures = [], 0
    if chunk:
        yield chunk
