"""Buffers all rows of a source, so that a load that needs their number first reads it once."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from tempfile import SpooledTemporaryFile, gettempdir
from types import TracebackType
from typing import Self

from app.errors import BadInput, BadSource
from ingest.sources import SourceReject, SourceRow

MEMORY_BYTES = 64 << 20
"""Compressed rows of more than a million products; above that they go to a temporary file."""
BLOCK_ROWS = 64
"""Rows that are compressed together: few, because a row may have 10 MB."""

Rows = list[SourceRow | SourceReject]

_LENGTH = struct.Struct("<Q")


class RowBuffer:
    """Rows of a source, compressed. `fill` it once, then iterate over it once.

    Where reading the source raises BadSource, `fill` ends and iterating over the buffer raises it
    after the rows before that place, as iterating over the source would.
    """

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 (see __exit__)
        self._error: BadSource | None = None
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        """The number of rows, rejects included."""
        return self._rows

    def fill(
        self,
        rows: Iterable[SourceRow | SourceReject],
        check: Callable[[Rows], Rows] = lambda block: block,
    ) -> Iterator[SourceRow | SourceReject]:
        """Store the rows and pass them on; the iterator must be exhausted.

        `check` is called with some rows at a time and returns as many, some as rejects.
        """
        rows = iter(rows)
        while block := check(self._read_block(rows)):
            data = zlib.compress(pickle.dumps(block, pickle.HIGHEST_PROTOCOL), level=1)
            with _temporary_file_errors():
                self._file.write(_LENGTH.pack(len(data)))
                self._file.write(data)
            self._rows += len(block)
            yield from block

    def _read_block(self, rows: Iterator[SourceRow | SourceReject]) -> Rows:
        block: Rows = []
        try:
            for row in islice(rows, BLOCK_ROWS):
                block.append(row)
        except BadSource as exc:
            self._error = exc
        return block

    def __iter__(self) -> Iterator[SourceRow | SourceReject]:
        with _temporary_file_errors():
            self._file.seek(0)
        while block := self._stored_block():
            yield from block
        if self._error is not None:
            raise self._error

    def _stored_block(self) -> Rows:
        with _temporary_file_errors():
            head = self._file.read(_LENGTH.size)
            data = self._file.read(*_LENGTH.unpack(head)) if head else b""
        return pickle.loads(zlib.decompress(data)) if data else []


@contextmanager
def _temporary_file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise BadInput(
            f"The rows of this source need a temporary file in {gettempdir()}, which failed: "
            f"{exc.strerror or exc}. Make room there, or name another folder with TMPDIR."
        ) from exc
