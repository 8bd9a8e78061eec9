"""Ahead: the chunks of a source, prepared and encoded while the ones before them are written.

Every stage works on another chunk at the same time, and no more than three chunks are in memory:
one is written, one is encoded, one is prepared.
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
"""A chunk ends with the row that reaches either."""
ENCODED_AT_ONCE = 16
ENCODED_BYTES = 64 << 20
"""Bytes of inputs above which a batch is encoded before it is full."""

ENCODERS = min(4, os.cpu_count() or 1)
"""Threads that encode, each on its share of the cores (an `App` for an ingest is told so by its
`streams`). One batch spread over all cores is slower: its parts wait for each other, most of all
while other threads decode."""

_AHEAD = 2


class Prefetcher:
    """Prepares and encodes chunks in threads of its own; `close` ends them, and the preparer's."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer = preparer
        self._coming: set[bytes] = set()
        self._preparing = ThreadPoolExecutor(1, "prepare")
        self._cores = thread_count()
        share = max(1, self._cores // ENCODERS)
        self._encoding = ThreadPoolExecutor(ENCODERS, "encode", set_thread_count, (share,))

    def close(self) -> None:
        """Let the threads end, and what waits for them with them."""
        for threads in (self._preparing, self._encoding):
            threads.shutdown(wait=True, cancel_futures=True)
        self._preparer.close()
        set_thread_count(self._cores)

    def chunks(self, groups: Iterable[Sequence[SourceRow | SourceReject]]) -> Generator[Chunk]:
        """The groups as chunks, in order; each must be `written` before the next is taken."""
        waiting: deque[Future[Chunk]] = deque()
        for rows in groups:
            waiting.append(self._preparing.submit(self._prepare, rows))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def again(self, chunk: Chunk) -> Chunk:
        """The chunk that could not be written as it was, made anew from its rows."""
        for batch in chunk.encoded:
            batch.cancel()
        self.written(chunk)  # or never: either way it is not to be waited for
        return self._begun(self._preparer.prepare(chunk.rows))

    def written(self, chunk: Chunk) -> None:
        """The chunk's pictures are stored now."""
        self._coming.difference_update(chunk.new)

    def _prepare(self, rows: Sequence[SourceRow | SourceReject]) -> Chunk:
        # Looked at before the database is: a picture that leaves this set meanwhile is in there.
        chunk = self._preparer.prepare(rows, frozenset(self._coming))
        self._coming.update(chunk.new)
        return self._begun(chunk)

    def _begun(self, chunk: Chunk) -> Chunk:
        """The chunk, whose new pictures are being encoded from now on."""
        new = list(chunk.new.values())
        for start in range(0, len(new), ENCODED_AT_ONCE):
            batch = new[start : start + ENCODED_AT_ONCE]
            chunk.encoded.append(self._encoding.submit(self._encode, batch, chunk.fleet))
        return chunk

    def _encode(self, batch: Sequence[NewPicture], fleet: EncoderSet) -> EncodedPictures:
        vectors: dict[int, dict[bytes, Vector]] = {model.id: {} for model in fleet.models}
        for some in self._portions(batch, fleet):
            for model_id, rows in fleet.encode(list(some.values())).items():
                vectors[model_id].update(zip(some, rows, strict=True))
        return vectors

    def _portions(
        self, batch: Sequence[NewPicture], fleet: EncoderSet
    ) -> Iterator[dict[bytes, Inputs]]:
        """The batch with its inputs, in parts where those that memory was short for are large."""
        portion: dict[bytes, Inputs] = {}
        for new in batch:
            portion[new.data.sha256] = self._preparer.inputs(new, fleet)
            if sum(each.nbytes for inputs in portion.values() for each in inputs) > ENCODED_BYTES:
                yield portion
                portion = {}
        if portion:
            yield portion


def in_chunks(rows: Iterable[SourceRow | SourceReject]) -> Iterator[list[SourceRow | SourceReject]]:
    """The rows in groups of CHUNK_ROWS, or fewer with CHUNK_PICTURES pictures."""
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
