"""The rejects file: a CSV of what was refused and why, written while the run goes on."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from app.errors import BadInput
from ingest.sources import SourceReject

HEADER = ("line", "sku", "image", "reason")


class RejectFile:
    """Writes rejects line by line, so that a run that is cut off has told what it had refused."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._put([HEADER])

    def write(self, rejects: Sequence[SourceReject]) -> None:
        """Append rejects; nothing happens where no file was asked for."""
        self._put([(r.line, r.sku, r.image, r.reason) for r in rejects])

    def _put(self, rows: Sequence[Sequence[object]]) -> None:
        if self._file is None or not rows:
            return
        try:
            csv.writer(self._file).writerows(rows)
            self._file.flush()
        except OSError as exc:
            raise unwritable(self._file.name, exc) from exc


@contextmanager
def reject_file(path: Path | None) -> Iterator[RejectFile]:
    """A rejects file at `path` (overwritten), or one that keeps nothing. Raises BadInput."""
    if path is None:
        yield RejectFile(None)
        return
    try:
        file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as exc:
        raise unwritable(str(path), exc) from exc
    try:
        yield RejectFile(file)
    finally:
        # What could not be written was said already, and closing would try it again.
        with suppress(OSError):
            file.close()


def unwritable(name: str, exc: OSError) -> BadInput:
    """The error that says so."""
    return BadInput(
        f"The rejects file {name} cannot be written: {exc.strerror or exc}. Name another file."
    )
