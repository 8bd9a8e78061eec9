"""The manifest of a backup: contents, versions, and the hashes that verify its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app import atomic_files
from app.errors import BadInput
from app.types import Model

NAME = "manifest.json"
FORMAT = 1
"""Incremented when older versions cannot read the manifest any more."""


class BadBackup(BadInput):
    """This is not a backup that can be restored."""


@dataclass(frozen=True, slots=True)
class BackupFile:
    """Expected sha256 (hex) and size (bytes) of a file."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Contents of a backup.

    `rows` are row counts by table; rows of the tables in `left_out` are not included. `made_at` is
    in UTC, `revision` the migration, `model` the active model if there is one, `pgvector_schema`
    the schema of pgvector's types.
    """

    made_at: datetime
    lookalike: str
    revision: str
    postgresql: str
    postgresql_major: int
    pgvector: str
    model: Model | None
    rows: Mapping[str, int]
    left_out: tuple[str, ...]
    files: Mapping[str, BackupFile]
    pgvector_schema: str = "public"

    def as_dict(self) -> dict[str, Any]:
        """The manifest as JSON values, `made_at` in ISO 8601."""
        made_at = self.made_at.isoformat(timespec="seconds")
        return {"format": FORMAT, **asdict(self), "made_at": made_at}

    @property
    def size(self) -> int:
        """Total size of all files in bytes."""
        return sum(file.size for file in self.files.values())


def describe(path: Path) -> BackupFile:
    """The sha256 and size of a file on disk. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return BackupFile(digest.hexdigest(), file.tell())


def write(manifest: Manifest, folder: Path) -> None:
    """Write the manifest into the folder of a backup, flushed to disk. Raises OSError."""
    content = json.dumps(manifest.as_dict(), ensure_ascii=False, indent=2) + "\n"
    atomic_files.write_bytes(folder / NAME, content.encode())


def read(folder: Path) -> Manifest:
    """Read the manifest of a backup. Raises BadBackup with the reason."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except OSError as exc:
        raise BadBackup(
            f"{folder} is no backup: its {NAME} cannot be read ({exc.strerror or exc}). Name a "
            "folder that `lookalike backup` made."
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise _damaged(folder) from exc
    return _parse(content, folder)


def check_files(manifest: Manifest, folder: Path) -> None:
    """Raise BadBackup unless every file exists and has the size and sha256 of the manifest."""
    for name, expected in manifest.files.items():
        try:
            actual = describe(folder / name)
        except OSError as exc:
            raise BadBackup(
                f"{name} of the backup {folder} cannot be read: {exc.strerror or exc}. Restore "
                "another copy of it."
            ) from exc
        if actual != expected:
            raise BadBackup(
                f"{name} of the backup {folder} is not what was written ({actual.size:,} bytes, "
                f"{expected.size:,} were written). Nothing was restored; use another copy of it."
            )


def _parse(content: Any, folder: Path) -> Manifest:
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise _damaged(folder)
    if content["format"] != FORMAT:
        raise BadBackup(
            f"The backup {folder} has the format {content['format']}, and this Lookalike reads "
            f"{FORMAT}. Restore it with the Lookalike that made it, {content.get('lookalike')}."
        )
    try:
        manifest = TypeAdapter(Manifest).validate_python(content)
    except ValidationError as exc:
        raise _damaged(folder) from exc
    if any(Path(name).name != name for name in manifest.files):
        raise _damaged(folder)
    return manifest


def _damaged(folder: Path) -> BadBackup:
    return BadBackup(
        f"{folder / NAME} is not the manifest of a backup, or was changed. Use another copy of "
        "the backup."
    )
