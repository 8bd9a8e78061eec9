"""RemotePictures: the pictures of a source that it names by web address.

Several are downloaded at the same time, as many of one host as it may be asked for; each is kept as
a temporary file until its chunk is written. A picture that has not changed since an earlier run is
not transferred: the server is asked with the validators that it sent then.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from app import atomic_files
from app.db.download_cache import DownloadCache, KnownDownload
from app.errors import BadImage, BadInput
from app.images.download import NO_VALIDATORS, Downloader, TryLater, Validators
from app.images.url import is_address
from ingest.host_limits import Host, HostDown, Politeness
from ingest.picture_reader import FetchedPicture, PictureReader

THREADS = 16
"""Downloads at the same time, of all hosts together."""

ATTEMPTS = 3
"""How often a picture is asked for if the host does not answer."""

PAUSE_S = 1.0
"""Seconds before the second attempt; doubled before each further one."""

KEPT_ANNOUNCEMENTS = 5
"""Chunks whose files are kept: up to three are in memory, and one may be started again."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A picture to download; `anew` transfers it even if it has not changed."""

    name: str
    anew: bool
    future: Future[FetchedPicture] = field(default_factory=Future)


@dataclass(slots=True)
class _HostQueue:
    host: Host
    waiting: deque[_Request] = field(default_factory=deque)
    active: int = 0


class RemotePictures(PictureReader):
    """Downloads pictures by URL. Close it at the end."""

    def __init__(
        self, web: Downloader, cache: DownloadCache, politeness: Politeness | None = None
    ) -> None:
        self._downloaded = 0
        self._not_modified = 0
        self._web = web
        self._cache = cache
        self._politeness = politeness or Politeness()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._queues: dict[str, _HostQueue] = {}
        self._requests: dict[str, _Request] = {}
        self._announced: deque[frozenset[str]] = deque()
        self._folder = _temporary_folder()
        self._threads = ThreadPoolExecutor(THREADS, "download")

    def announce(self, names: Sequence[str]) -> None:
        """Begin to download the addresses among these names, and drop files of earlier chunks."""
        addresses = [name for name in names if is_address(name)]
        with self._lock:
            self._announced.append(frozenset(addresses))
            dropped: frozenset[str] = frozenset()
            if len(self._announced) > KEPT_ANNOUNCEMENTS:
                dropped = self._announced.popleft().difference(*self._announced)
            for name in dropped:
                self._requests.pop(name, None)
        for name in dropped:
            self._file(name).unlink(missing_ok=True)
        for name in addresses:
            self._request(name)

    def fetch(self, name: str) -> FetchedPicture:
        """A picture; without bytes if it has not changed since an earlier run. Raises BadImage."""
        fetched = self._request(name).future.result()
        file = self._file(name)
        return FetchedPicture(fetched.sha256, file.read_bytes() if file.exists() else None)

    def read(self, name: str) -> bytes:
        """The bytes of a picture, which is transferred unless its file is still here.

        The file of a picture that was not announced is not kept.
        """
        file = self._file(name)
        if not file.exists():
            request = _Request(name, anew=True)
            with self._lock:
                self._enqueue(request)
            request.future.result()
        data = file.read_bytes()
        if name not in self._requests:
            file.unlink(missing_ok=True)
        return data

    def counts(self) -> tuple[int, int]:
        """Pictures that were transferred, and that had not changed."""
        with self._lock:
            return self._downloaded, self._not_modified

    def stop(self) -> None:
        """Let everything that waits for a picture, or will, get a BadImage instead."""
        self._stopping.set()
        with self._lock:
            waiting = [each for queue in self._queues.values() for each in queue.waiting]
            for queue in self._queues.values():
                queue.waiting.clear()
        for request in waiting:
            request.future.set_exception(HostDown("The run ended before this was downloaded."))

    def close(self) -> None:
        """End the downloads and delete the files; further calls have no effect."""
        self.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._web.close()
        self._cache.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _request(self, name: str) -> _Request:
        """The download of a picture, begun now unless it was before."""
        with self._lock:
            request = self._requests.get(name)
            if request is None:
                request = self._requests[name] = _Request(name, anew=False)
                self._enqueue(request)
        return request

    def _enqueue(self, request: _Request) -> None:
        """Queue a request for its host; the lock is held."""
        if self._stopping.is_set():
            request.future.set_exception(HostDown("The run ended before this was downloaded."))
            return
        queue = self._queue(request.name)
        queue.waiting.append(request)
        if queue.active < self._politeness.at_once:
            queue.active += 1
            self._threads.submit(self._work, queue)

    def _queue(self, name: str) -> _HostQueue:
        host = _host(name)
        if host not in self._queues:
            self._queues[host] = _HostQueue(Host(host, self._politeness, self._stopping))
        return self._queues[host]

    def _work(self, queue: _HostQueue) -> None:
        """Download what waits for a host, one after the other."""
        while True:
            with self._lock:
                if not queue.waiting:
                    queue.active -= 1
                    return
                request = queue.waiting.popleft()
            try:
                known = None if request.anew else self._cache.get(request.name)
                request.future.set_result(self._download(queue.host, request.name, known))
            except BaseException as exc:
                request.future.set_exception(exc)

    def _download(self, host: Host, name: str, known: KnownDownload | None) -> FetchedPicture:
        """Download a picture into its file, unless it is as known. Raises BadImage."""
        for attempt in range(ATTEMPTS):
            host.wait_turn()
            try:
                fetched = self._transfer(name, known)
            except TryLater as exc:
                host.failed(exc, PAUSE_S * 2**attempt)
                error = exc
            except BadImage:
                host.answered()
                raise
            else:
                host.answered()
                return fetched
        raise error

    def _transfer(self, name: str, known: KnownDownload | None) -> FetchedPicture:
        given = Validators(known.etag, known.last_modified) if known else NO_VALIDATORS
        try:
            with atomic_files.draft(self._folder, durable=False) as part:
                validators = self._web.fetch(name, part.file, given)
                if validators is None and known is not None:
                    self._count(not_modified=1)
                    return FetchedPicture(known.sha256, None)
                part.finish()
                sha256 = _sha256(part.path)
                part.publish(self._file(name))
        except OSError as exc:
            raise BadInput(
                f"Downloaded pictures are kept in {self._folder}, which failed: "
                f"{exc.strerror or exc}. Make room there, or name another folder with TMPDIR."
            ) from exc
        self._count(downloaded=1)
        self._remember(name, validators, sha256)
        return FetchedPicture(sha256, None)

    def _remember(self, name: str, validators: Validators | None, sha256: bytes) -> None:
        if validators:
            known = KnownDownload(validators.etag, validators.last_modified, sha256)
            self._cache.put(name, known)
        else:
            self._cache.forget(name)

    def _count(self, *, downloaded: int = 0, not_modified: int = 0) -> None:
        with self._lock:
            self._downloaded += downloaded
            self._not_modified += not_modified

    def _file(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _host(name: str) -> str:
    try:
        return urlsplit(name).netloc.lower()
    except ValueError:
        return ""  # refused when it is downloaded


def _sha256(file: Path) -> bytes:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").digest()


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="lookalike-pictures-"))
    except OSError as exc:
        raise BadInput(
            f"There is no folder for downloaded pictures: {exc.strerror or exc}. Name one with "
            "TMPDIR."
        ) from exc
