"""The rejects file: a CSV of refused rows and pictures with the reasons, written during the run."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from app.errors import BadInput
from ingest.sources import SourceReject

STDOUT = Path("-")
"""Stands for standard output, as for a container whose file system is read-only."""

HEADER = ("line", "sku", "image", "reason")


RejectCallback = Callable[[SourceReject], object]
"""Called with each refused row or picture."""


class RejectFile:
    """Writes and flushes rejects as they occur, so that an interrupted run leaves them on disk.

    Without a file they only go to `callback`.
    """

    def __init__(self, file: TextIO | None, callback: RejectCallback = lambda reject: None) -> None:
        self._file = file
        self._callback = callback
        self._write_rows([HEADER])

    def write(self, rejects: Sequence[SourceReject]) -> None:
        """Append rejects, and pass each to the callback."""
        for reject in rejects:
            self._callback(reject)
        self._write_rows([(r.line, r.sku, r.image, r.reason) for r in rejects])

    def _write_rows(self, rows: Sequence[Sequence[object]]) -> None:
        if self._file is None or not rows:
            return
        try:
            csv.writer(self._file).writerows(rows)
            self._file.flush()
        except OSError as exc:
            raise unwritable(self._file.name, exc) from exc


@contextmanager
def reject_file(
    path: Path | None, callback: RejectCallback = lambda reject: None
) -> Iterator[RejectFile]:
    """A rejects file at `path` (overwritten), or standard output for STDOUT; None only calls back.

    Raises BadInput.
    """
    if path is None or path == STDOUT:
        yield RejectFile(sys.stdout if path else None, callback)
        return
    try:
        file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as exc:
        raise unwritable(str(path), exc) from exc
    try:
        yield RejectFile(file, callback)
    finally:
        # Closing tries to flush again; an error in that was raised by `write` already.
        with suppress(OSError):
            file.close()


def unwritable(name: str, exc: OSError) -> BadInput:
    """The error for a rejects file that cannot be written."""
    return BadInput(
        f"The rejects file {name} cannot be written: {exc.strerror or exc}. Name another file."
    )
