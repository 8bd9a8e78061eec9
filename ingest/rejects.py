"""The rejects file: a CSV of what was refused and why, written while the run goes on."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from app.errors import BadInput
from ingest.sources import Reject

HEADER = ("line", "sku", "image", "reason")


class RejectFile:
    """Writes rejects line by line, so that a run that is cut off has told what it had refused."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._writer = csv.writer(file) if file else None
        if self._writer:
            self._writer.writerow(HEADER)

    def write(self, rejects: Sequence[Reject]) -> None:
        """Append rejects; nothing happens where no file was asked for."""
        if self._writer and self._file and rejects:
            self._writer.writerows((r.line, r.sku, r.image, r.reason) for r in rejects)
            self._file.flush()


@contextmanager
def reject_file(path: Path | None) -> Iterator[RejectFile]:
    """A rejects file at `path` (overwritten), or one that keeps nothing. Raises BadInput."""
    if path is None:
        yield RejectFile(None)
        return
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as exc:
        raise BadInput(f"The rejects file {path} cannot be written: {exc.strerror}.") from exc
    with file:
        yield RejectFile(file)
