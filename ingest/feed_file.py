"""Downloads a feed by its address into a file, unless the file of an earlier run is still it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from app import atomic_files
from app.db.download_cache import DownloadCache, KnownDownload
from app.errors import BadImage, BadSource
from app.images.download import NO_VALIDATORS, Downloader, Validators


def fetch_feed(address: str, folder: Path, web: Downloader, cache: DownloadCache) -> Path:
    """The file in `folder` with the feed of an address, as it is now.

    It is complete or not there: a download that breaks off leaves the former file. Raises BadSource
    with what to do.
    """
    name = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
    file = folder / name
    try:
        known = cache.get(address)
        validators = NO_VALIDATORS
        if known is not None and file.is_file() and _sha256(file) == known.sha256:
            validators = Validators(known.etag, known.last_modified)
        with atomic_files.draft(folder, durable=False) as part:
            received = web.fetch(address, part.file, validators)
            if received is not None:
                part.finish()
                sha256 = _sha256(part.path)
                part.publish(file)
                cache.put(address, KnownDownload(received.etag, received.last_modified, sha256))
    except BadImage as exc:
        raise BadSource(str(exc)) from exc
    except OSError as exc:
        raise BadSource(
            f"The feed cannot be stored in {folder}: {exc.strerror or exc}. Make room there, or "
            "name another folder with LOOKALIKE_HOME."
        ) from exc
    return file


def _sha256(file: Path) -> bytes:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").digest()
