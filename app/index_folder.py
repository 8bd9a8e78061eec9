"""The folder of index files, looked at without opening an index: what is whole, what is left."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from app.errors import IndexUnwritable
from app.index_files import LEFT_S


def intact(file: Path, sha256: str) -> bool | None:
    """Whether a file is what was written; None where there is none that can be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == sha256
    except OSError:
        return None


def whole(pieces: Iterable[bytes], sha256: str) -> bool | None:
    """Whether pieces make up the file with this sha256; None if there are none."""
    digest, some = hashlib.sha256(), False
    for piece in pieces:
        digest.update(piece)
        some = True
    return digest.hexdigest() == sha256 if some else None


def put(file: Path, pieces: Iterable[bytes]) -> None:
    """Make a file of its pieces, whole or not at all. Raises IndexUnwritable."""
    draft = file.with_name(f"{uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as out:
            out.writelines(pieces)
        draft.replace(file)
    except OSError as exc:
        raise IndexUnwritable(
            f"{file.parent} cannot be written: {exc.strerror or exc}. Make room, or choose another "
            "folder with LOOKALIKE_INDEX_DIR."
        ) from exc
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def left_behind(folder: Path, needed: Collection[str]) -> list[Path]:
    """Files that no build needs and that no process is making; only for the one builder.

    `needed` are the sha256 of builds. A file that may be on its way in from the database is spared.
    """
    found = [file for file in folder.glob("*.faiss") if file.stem not in needed]
    found += folder.glob("*.tmp")
    found += [file for file in folder.glob("*.part") if _age(file) > LEFT_S]
    return sorted(found)


def remove(files: Iterable[Path]) -> int:
    """Delete files; returns how many are gone."""
    gone = 0
    for file in files:
        with suppress(OSError):
            file.unlink()
            gone += 1
    return gone


def _age(file: Path) -> float:
    """Seconds since a file was written to; 0 for one that has gone meanwhile."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return 0
