"""Builds in parts on a Ray cluster: each part in the memory of an actor, searched all at once."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from typing import Any
from weakref import WeakKeyDictionary, ref

from app.cluster import actors as cluster_actors
from app.cluster.actors import ANSWER_S, Actors, CallFailed, attach, bounded
from app.cluster.portable_settings import check_reachable, portable
from app.config import Settings
from app.db.engine import make_engine
from app.db.queries import index_builds
from app.errors import IndexUnreadable, LookalikeError
from app.index.faiss_index import AnnIndex
from app.index.faiss_library import one_thread
from app.index.file_store import IndexFiles
from app.index.id_selectors import ExcludedIds, Ids, IdSelector, SentIds
from app.index.parted_index import PartAnswer, PartedIndex
from app.types import Build, Vectors

LEASE_S = 60.0
"""An actor ends itself when no process has asked for it for so long."""

RENEW_S = 10.0
"""Seconds between two signs of life to the actors of an index that is open; an actor that was ended
is begun again then."""

SIGN_S = 5.0
"""Seconds in which one of the actors should answer a sign of life; if none does, the cluster is
asked whether it does."""

LONGEST_PAUSE_S = 60.0
"""Seconds before a connection is tried again: at first 2, and twice as many after each failure up
to this."""

BOUND = 2.0
"""Times as long as a search waits for the parts, its calls may take at most."""

OPEN_S = 60.0
"""Seconds that the opening of an index waits for its parts."""

RETRY_S = 5.0
"""Seconds after which an actor that could not open its part tries again."""

CONCURRENT = 4
"""Calls that an actor answers at the same time."""

SHARED_BYTES = 1 << 16
"""Ids of a selection that take more than this are stored in the cluster once for all searches that
send them."""

_log = logging.getLogger("lookalike.parts")


class PartActor:
    """Holds one part of a build, in a worker process of a cluster.

    It opens the part from the index folder of its machine, or from PostgreSQL, when it is created,
    and again after Ray has created it anew on another machine.
    """

    def __init__(self, settings: str, build: Build, its_version: str) -> None:
        self._settings = settings
        self._build = build
        self._index: AnnIndex | None = None
        self._error: str | None = None
        self._asked_at = time.monotonic()
        tasks = [self._end_unused]
        self._may_open = its_version == version("lookalike")
        if self._may_open:
            tasks.append(self._open)
        else:
            self._error = f"a node has Lookalike {version('lookalike')}, this is {its_version}"
        for task in tasks:
            threading.Thread(target=task, name=task.__name__, daemon=True).start()

    def is_open(self) -> bool:
        """Whether the part is open; a sign of life. Raises IndexUnreadable if it could not be
        opened. In another version it never is, so that no sign keeps the actor from its end, after
        which it is begun again, on a node that was updated meanwhile."""
        if self._may_open:
            self._asked_at = time.monotonic()
        if self._index is None and self._error is not None:
            raise IndexUnreadable(self._error)
        return self._index is not None

    def search(
        self, queries: Vectors, k: int, nprobe: int, selected: SentIds | None, excluded: Ids | None
    ) -> PartAnswer | None:
        """What the part finds; None while it is not open."""
        self._asked_at = time.monotonic()
        index = self._index
        if index is None:
            return None
        selector = None if selected is None else selected.selector()
        passed = None if excluded is None else ExcludedIds(excluded)
        with one_thread():
            return index.search_lists(queries, min(k, index.rows), nprobe, selector, passed)

    def _open(self) -> None:
        while self._index is None:
            try:
                self._index = self._read()
            except Exception as exc:  # a thread that ends would leave the part closed for ever
                self._error = str(exc) or type(exc).__name__
                time.sleep(RETRY_S)

    def _read(self) -> AnnIndex:
        settings = Settings(**json.loads(self._settings))
        engine = make_engine(settings)
        try:
            with engine.connect() as connection:
                return IndexFiles(settings.index_folder).read(
                    self._build,
                    lambda build: index_builds.read_file(connection, build.id, build.part),
                )
        finally:
            engine.dispose()

    def _end_unused(self) -> None:
        while time.monotonic() - self._asked_at < LEASE_S:
            time.sleep(1)
        cluster_actors.end_this_actor()


class ConnectedParts:
    """The actors of the parts of an index, as one connection to the cluster reaches them.

    A part that does not answer in time is away: later searches do not wait for it until it has
    answered the call that was late, or a sign of life after one that failed.
    """

    def __init__(self, actors: Actors, settings: str, build: Build) -> None:
        self.actors = actors
        self._settings = settings
        self._files = build.files
        self._parts = build.parts
        self._lock = threading.Lock()
        self._handles = [self._started(number) for number in range(len(self._files))]
        self._late: dict[int, Any] = {}
        self._shared: WeakKeyDictionary[IdSelector, list[Any]] = WeakKeyDictionary()

    def search(
        self, queries: Vectors, k: int, nprobe: int,
        selector: IdSelector | None, excluded: ExcludedIds | None, wait_s: float,
    ) -> list[PartAnswer | None]:  # fmt: skip
        """What each part finds; None for one that did not answer in time. Raises CallFailed where
        the calls of all parts fail."""
        selected = self._sent(selector)
        calls: dict[int, Any] = {}
        failed: CallFailed | None = None
        for number, part in enumerate(self._parts):
            if self._is_away(number):
                continue
            passed = None if excluded is None else excluded.within(part.first, part.last)
            arguments = (queries, k, nprobe, selected[number], passed)
            try:
                calls[number] = self.actors.call(self._handles[number], "search", *arguments)
            except CallFailed as exc:
                self._fail(number, exc)
                failed = exc
        if failed is not None and not calls:
            raise failed
        done = self.actors.wait(list(calls.values()), wait_s)
        answers: list[PartAnswer | None] = [None] * len(self._parts)
        for number, call in calls.items():
            if call not in done:
                with self._lock:
                    self._late[number] = call
                continue
            try:
                answers[number] = self.actors.result(call)
            except CallFailed as exc:
                self._fail(number, exc)
        return answers

    def wait_until_open(self, seconds: float) -> str | None:
        """Wait until all parts are open; the reason why one is not, after so many seconds."""
        ends = time.monotonic() + seconds
        while True:
            reason = next(filter(None, map(self._not_open, range(len(self._parts)))), None)
            if reason is None or time.monotonic() > ends:
                return reason
            time.sleep(0.1)

    def renew(self) -> bool:
        """Give a sign of life to each actor, and begin those again that were ended; whether any
        has answered."""
        calls = []
        for number in range(len(self._parts)):
            try:
                handle = self._started(number)
                self._handles[number] = handle
                calls.append(self.actors.call(handle, "is_open"))
            except CallFailed as exc:
                _log.debug("part %s could not be reached: %s", number + 1, exc)
        try:
            return bool(self.actors.wait(calls, SIGN_S))
        except CallFailed:
            return False

    def _started(self, number: int) -> Any:
        # Processes of two versions may run at the same time, as during an upgrade.
        file, its_version = self._files[number], version("lookalike")
        name = sha256(f"{its_version} {index_builds.identity(file)}".encode()).hexdigest()[:32]
        return self.actors.start(
            f"part-{number}-{name}", PartActor, self._settings, file, its_version,
            concurrent=CONCURRENT,
        )  # fmt: skip

    def _not_open(self, number: int) -> str | None:
        try:
            call = self.actors.call(self._handles[number], "is_open")
            if call in self.actors.wait([call], 1.0) and self.actors.result(call):
                return None
            return f"part {number + 1} of {len(self._parts)} is not open yet"
        except CallFailed as exc:
            return f"part {number + 1} of {len(self._parts)} is not open: {exc}"

    def _sent(self, selector: IdSelector | None) -> list[Any]:
        """What each part is sent of a selection: its own ids, or a reference to them."""
        if selector is None:
            return [None] * len(self._parts)
        with self._lock:
            if (shared := self._shared.get(selector)) is not None:
                return shared
        sent: list[Any] = [selector.within(part.first, part.last) for part in self._parts]
        if sum(each.nbytes for each in sent) > SHARED_BYTES:
            sent = [self.actors.share(each) for each in sent]
            with self._lock:
                self._shared[selector] = sent
        return sent

    def _is_away(self, number: int) -> bool:
        """Whether a part has still to answer a call that was late."""
        with self._lock:
            late = self._late.get(number)
            if late is None:
                return False
            try:
                if late not in self.actors.wait([late], 0):
                    return True
                self.actors.result(late)
                del self._late[number]
                return False
            except CallFailed:
                self._probe(number)
                return True

    def _fail(self, number: int, exc: CallFailed) -> None:
        _log.debug("part %s did not answer: %s", number + 1, exc)
        with self._lock:
            self._probe(number)

    def _probe(self, number: int) -> None:
        """Ask a part whether it is there; it is away until it answers."""
        try:
            self._late[number] = self.actors.call(self._handles[number], "is_open")
        except CallFailed:
            self._late.pop(number, None)  # the next search tries again


class RemoteParts:
    """Searches the parts of an index in their actors. All parts are away while the cluster does not
    answer; in a thread, the connection is then made again, and the actors are opened anew."""

    def __init__(self, actors: Actors, settings: str, build: Build, wait_s: float) -> None:
        self._actors = actors
        self._of_build = (settings, build)
        self.wait_s = wait_s
        self._woken = threading.Event()
        self._answering = True
        self.connected = self._parts()
        self._count = len(build.parts)
        threading.Thread(
            target=_renew, args=(ref(self), self._woken), name="renew-parts", daemon=True
        ).start()

    def search_parts(
        self, queries: Vectors, k: int, nprobe: int,
        selector: IdSelector | None, excluded: ExcludedIds | None,
    ) -> list[PartAnswer | None]:  # fmt: skip
        """What each part finds; None for one that did not answer in time."""
        if self._answering:
            search = partial(self.connected.search, queries, k, nprobe, selector, excluded)
            try:
                # Ray's own calls wait for minutes where the network is away.
                return bounded(partial(search, self.wait_s), BOUND * self.wait_s)
            except CallFailed as exc:  # not of one part
                _log.debug("no part could be asked: %s", exc)
                self._answering = False
                self._woken.set()
        return [None] * self._count

    def wait_until_open(self, seconds: float) -> str | None:
        """Wait until all parts are open; the reason why one is not, after so many seconds. Raises
        CallFailed."""
        return bounded(partial(self.connected.wait_until_open, seconds), seconds + ANSWER_S)

    def renew(self) -> bool:
        """Give a sign of life to the actors, by a new connection if the cluster does not answer;
        whether it does."""
        try:
            if not self._renewed() and not self._actors.is_connected():
                _log.debug("the cluster of the parts does not answer")
                self._answering = False
                self._actors = self._actors.connected_again()
            if self.connected.actors is not self._actors:
                self.connected = self._parts()
                _log.warning("the cluster of the parts was lost, and is connected to again")
        except LookalikeError as exc:
            _log.debug("the cluster of the parts could not be connected to: %s", exc)
            return False
        self._answering = True
        return True

    def _renewed(self) -> bool:
        try:
            return bounded(self.connected.renew, ANSWER_S)
        except CallFailed:
            return False

    def _parts(self) -> ConnectedParts:
        return bounded(partial(ConnectedParts, self._actors, *self._of_build), OPEN_S)


def _renew(parts: ref[RemoteParts], woken: threading.Event) -> None:
    """Renew the actors of an index as long as the index is in use."""
    failures = 0
    while True:
        woken.wait(min(2.0 ** min(failures, 10), LONGEST_PAUSE_S) if failures else RENEW_S)
        woken.clear()
        alive = parts()
        if alive is None:
            return
        failures = 0 if alive.renew() else failures + 1
        del alive


class PartsOnCluster:
    """Opens builds in parts on the cluster that the settings name; connects on first use."""

    def __init__(self, settings: Callable[[], Settings], address: str) -> None:
        """`settings` gives those with the URL of the server."""
        self._settings = settings
        self._address = address

    def __call__(self, build: Build, previous: bool) -> PartedIndex:
        """The parts of a build, in their actors. If a `previous` build answers meanwhile, all of
        them must be open in OPEN_S; otherwise those that are not are away.

        Raises IndexUnreadable.
        """
        settings = self._settings()
        try:
            check_reachable(settings, self._address)
            actors = attach(self._address, settings.part_cpus)
            parts = RemoteParts(actors, portable(settings), build, settings.part_wait_s)
            reason = parts.wait_until_open(OPEN_S)
        except LookalikeError as exc:
            raise IndexUnreadable(f"its parts cannot be opened: {exc}") from exc
        if reason is not None:
            _log.warning("build %s: %s", build.id, reason)
            if previous:
                raise IndexUnreadable(reason)
        dim = int(build.parameters["dim"])
        return PartedIndex(build.index_kind, dim, build.parameters, build.parts, parts)
