"""The original pictures: whether they are where they came from, as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sqlalchemy import Engine

from app.db.engine import snapshot
from app.db.queries import pictures
from app.errors import BadImage
from app.integrity.findings import Finding
from app.integrity.tally import Tally, Tick


class Folder(Protocol):
    """A folder that pictures lie in."""

    def read(self, name: str) -> bytes:
        """The bytes of the picture that a source called `name`; raises BadImage if it cannot."""


class Changed(BadImage):
    """Another picture has taken the place of this one."""


class Originals:
    """The folders that the originals may lie in; the first that has one counts."""

    def __init__(self, folders: Sequence[Folder]) -> None:
        self._folders = folders

    def __bool__(self) -> bool:
        return bool(self._folders)

    def read(self, uri: str, sha256: bytes) -> bytes:
        """The bytes with this sha256. Raises Changed, or BadImage with the reason."""
        failed: BadImage | None = None
        for folder in self._folders:
            try:
                data = folder.read(uri)
            except BadImage as exc:
                failed = failed or exc
                continue
            if hashlib.sha256(data).digest() == sha256:
                return data
            failed = Changed(f"{uri!r} is another picture now")
        raise failed or BadImage(f"{uri!r} is not there")

    def trouble(self, source: tuple[str, bytes]) -> BadImage | None:
        """What is wrong with an original; None if nothing is."""
        try:
            self.read(*source)
        except BadImage as exc:
            return exc
        return None


def find(engine: Engine, where: Originals, tick: Tick) -> Iterator[Finding]:
    """Originals that are missing, cannot be read, or are other pictures now."""
    missing, changed, seen = Tally(), Tally(), 0
    with ThreadPoolExecutor() as threads, snapshot(engine) as connection:
        for portion in pictures.shown(connection):
            for trouble in filter(None, threads.map(where.trouble, portion)):
                (changed if isinstance(trouble, Changed) else missing).add(str(trouble))
            seen += len(portion)
            tick(f"{seen:,} originals")
    for found in (
        missing.finding(
            "originals-missing", "warning", "originals that cannot be read",
            "Searches do without; another model does not. Bring them back, or name their folder "
            "with --images.",
        ),
        changed.finding(
            "originals-changed", "warning", "originals that are other pictures now",
            "Load those products again with `lookalike ingest`, or bring the old files back.",
        ),
    ):  # fmt: skip
        if found is not None:
            yield found
