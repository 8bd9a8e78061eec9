"""SearchListener: answers `lookalike search` of the same user in a process that runs already."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app.bootstrap import App
from app.cli import running
from app.cli.output import captured
from app.cli.search_answer import print_answer
from app.errors import Busy, DatabaseUnavailable, LookalikeError

MAX_COMMANDS = 8
"""Commands that are answered at the same time; further ones answer by themselves."""

MAX_OPTIONS = 1 << 20
"""Bytes of the options of a command."""

MAX_PHOTOS = 20
"""Photos of the largest size that a command may send."""

REQUEST_S = 10.0
"""Seconds in which a command must send its options and photos."""

_log = logging.getLogger("lookalike")


class SearchListener:
    """Listens on a socket in the home folder until it is closed; a context manager.

    Where it cannot listen, commands answer by themselves.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._identity = running.identity()
        self._free = threading.BoundedSemaphore(MAX_COMMANDS)
        self._socket: socket.socket | None = None
        self._closed = False
        self._path = app.settings.home / running.FOLDER / f"{os.getpid()}.sock"

    def __enter__(self) -> Self:
        try:
            self._socket = _listening(self._path)
        except OSError as exc:
            _log.info("no command is answered through %s: %s", self._path, exc)
        if self._socket is not None:
            threading.Thread(
                target=self._accept, args=(self._socket,), name="search commands", daemon=True
            ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        if self._socket is not None:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._socket.close()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # closed
            if not self._free.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._serve, args=(connection,), name="search command", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._reply(connection)
        except (OSError, running.Incomplete, ValueError, LookupError, TypeError) as exc:
            _log.debug("a command was not answered: %s", exc)
        except Exception:
            _log.exception("a command was not answered")  # it answers by itself
        finally:
            self._free.release()

    def _reply(self, connection: socket.socket) -> None:
        connection.settimeout(REQUEST_S)
        if not running.is_own_user(connection):
            return
        header = running.receive(connection, MAX_OPTIONS)
        if header["identity"] != self._identity:
            return
        sizes = [size for own in header["photos"].values() for size in own]
        most = MAX_PHOTOS * (self._app.settings.max_image_bytes + 1)
        if not all(isinstance(size, int) and size >= 0 for size in sizes) or sum(sizes) > most:
            return
        running.send(connection, running.WORKING)
        photos = {
            name: [running.read(connection, size) for size in own]
            for name, own in header["photos"].items()
        }
        thread = threading.get_ident()
        with _beating(connection, lambda: self._app.statement_cancel.cancel(thread)):
            answer = self._answer(header, photos)
        running.send(connection, answer)

    def _answer(self, header: dict[str, Any], photos: running.Photos) -> dict[str, str]:
        """The output of a command, or the message of an error; empty if it shall try itself: where
        it would wait for a place, and where the error may be one of this process alone."""
        with captured(header["columns"], plain=header["plain"]) as output:
            try:
                _ = self._app.statement_cancel  # knows the connections from now on
                with self._app.admission.not_waiting():
                    print_answer(self._app, header["options"], photos, untrusted=True)
            except (Busy, DatabaseUnavailable):
                return {}
            except LookalikeError as exc:
                return {} if self._closed else {"error": str(exc)}
        return {"out": output.out.getvalue(), "err": output.err.getvalue()}


@contextmanager
def _beating(connection: socket.socket, ended: Callable[[], None]) -> Iterator[None]:
    """Tell a command regularly during the block that this process works on it; once the command
    has ended, call `ended` as often."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(running.BEAT_S):
            try:
                running.send(connection, running.WORKING)
            except OSError:
                ended()

    thread = threading.Thread(target=beat, name="search command beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _listening(path: Path) -> socket.socket | None:
    """A socket at a path that only this user can reach; None where there cannot be one. Raises
    OSError."""
    if len(os.fsencode(path)) > running.MAX_ADDRESS:
        return None
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not running.is_private(path.parent):
        return None
    _remove_stale(path.parent)
    new = path.with_suffix(".new")  # until it listens, it looks like that of a killed process
    new.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(new))
        listening.listen()
        new.rename(path)
    except BaseException:
        listening.close()
        new.unlink(missing_ok=True)
        raise
    return listening


def _remove_stale(folder: Path) -> None:
    """Remove the sockets of processes that were killed."""
    for path in folder.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue
