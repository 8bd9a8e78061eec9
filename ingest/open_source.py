"""Opens a source by its path or web address, with the pictures that it names by either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from app.config import Settings
from app.db.download_cache import DownloadCache
from app.errors import BadImage
from app.images.download import FEED, Downloader
from app.images.url import is_address
from ingest.feed_file import fetch_feed
from ingest.feeds.formats import AUTO, read_source
from ingest.host_limits import Politeness
from ingest.local_files import LocalPictures
from ingest.picture_reader import FetchedPicture, PictureReader
from ingest.remote_pictures import RemotePictures
from ingest.sources import SourceReject, SourceRow

MAX_FEED_BYTES = 4 << 30
"""The largest feed that is downloaded."""

FEED_TIMEOUT_S = 1800.0
"""Seconds in which a feed must be downloaded."""


@dataclass(frozen=True, slots=True)
class OpenSource:
    """The rows of a source, to be read once, its name for the record of the run, and its
    pictures."""

    name: str
    rows: Iterator[SourceRow | SourceReject]
    pictures: PictureReader


def open_source(
    source: str,
    settings: Settings,
    *,
    images: Path | None = None,
    encoding: str = "utf-8",
    format: str = AUTO,
) -> OpenSource:
    """The source at a path or a web address.

    Pictures that it names by address are downloaded, others are read below `images`, by default the
    folder of the source. The pictures must be closed. Raises BadSource.
    """
    cache = download_cache(settings)
    try:
        if is_address(source):
            web = _feed_downloader(settings)
            file = fetch_feed(source, settings.download_folder, web, cache)
        else:
            file = Path(source)
        rows = read_source(file, encoding=encoding, format=format)  # refuses what is no file
        folder = images_folder(source, images)
        local = LocalPictures(folder, max_bytes=settings.max_image_bytes) if folder else None
    except BaseException:
        cache.close()
        raise
    return OpenSource(
        public_name(source), rows, AnyPictures(local, remote_pictures(settings, cache))
    )


def images_folder(source: str, images: Path | None) -> Path | None:
    """The folder in which the pictures of a source are named, if it has one."""
    if images is not None or is_address(source):
        return images
    path = Path(source)
    return path if path.is_dir() else path.parent


def public_name(source: str) -> str:
    """The name of a source for records: an address without its query, which may be a secret."""
    if not is_address(source):
        return source
    parts = urlsplit(source.strip())
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def download_cache(settings: Settings) -> DownloadCache:
    """What this machine has downloaded before."""
    return DownloadCache(settings.download_folder / "known.sqlite3")


def remote_pictures(settings: Settings, cache: DownloadCache, share: int = 1) -> RemotePictures:
    """Pictures by address under the rules of the page; closing them closes the cache.

    Where `share` processes download for one ingest, each asks a host for that part of what the
    settings allow, but for one picture at a time at least.
    """
    web = Downloader(
        max_bytes=settings.max_image_bytes, ports=settings.link_port_numbers,
        allow_private=settings.private_addresses, keep_alive=True,
    )  # fmt: skip
    politeness = Politeness(
        max(1, settings.downloads_at_once // share), settings.downloads_per_second / share
    )
    return RemotePictures(web, cache, politeness)


def _feed_downloader(settings: Settings) -> Downloader:
    return Downloader(
        max_bytes=MAX_FEED_BYTES, ports=settings.link_port_numbers,
        allow_private=settings.private_addresses, timeout_s=FEED_TIMEOUT_S, kind=FEED,
    )  # fmt: skip


class AnyPictures(PictureReader):
    """Pictures by address, and by the names of files in a folder if there is one."""

    def __init__(self, local: LocalPictures | None, remote: RemotePictures) -> None:
        self._local = local
        self._remote = remote

    def announce(self, names: Sequence[str]) -> None:
        """Begin to download the addresses among these names."""
        self._remote.announce(names)

    def fetch(self, name: str) -> FetchedPicture:
        """A picture that may be stored already. Raises BadImage with the reason."""
        return self._reader(name).fetch(name)

    def read(self, name: str) -> bytes:
        """The bytes of a picture. Raises BadImage with the reason."""
        return self._reader(name).read(name)

    def counts(self) -> tuple[int, int]:
        """Pictures that were downloaded, and that had not changed."""
        return self._remote.counts()

    def stop(self) -> None:
        """Refuse the pictures that are waited for."""
        self._remote.stop()

    def close(self) -> None:
        """End the downloads."""
        self._remote.close()

    def _reader(self, name: str) -> PictureReader:
        if is_address(name):
            return self._remote
        if self._local is None:
            raise BadImage(
                f"{name!r} is no web address, and a feed from the web has no folder; name the "
                "folder with --images"
            )
        return self._local
