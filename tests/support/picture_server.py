"""A web server of pictures and feeds on loopback that counts requests and can fail on demand."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class PictureServer:
    """`files` by path; `broken` has what to answer instead, by path: a status, a status with
    headers, or "cut" for a connection that breaks off, each once per entry of its list.

    `sent` counts complete answers with a body, `unchanged` those without (304); `at_once` is the
    most requests that were answered at the same time.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    broken: dict[str, list[Any]] = field(default_factory=dict)
    validators: bool = True
    sent: Counter[str] = field(default_factory=Counter)
    unchanged: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    active: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    hold: threading.Event | None = None
    """If set, answers wait for it."""

    def reset(self) -> None:
        """Forget the requests so far."""
        for counter in (self.sent, self.unchanged, self.asked):
            counter.clear()
        self.at_once = 0


@contextmanager
def picture_server() -> Iterator[PictureServer]:
    """A server without files."""
    state = PictureServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with state.lock:
                state.active += 1
                state.at_once = max(state.at_once, state.active)
                state.asked[self.path] += 1
            try:
                if state.hold is not None:
                    state.hold.wait(300)
                self._answer(self.path)
            finally:
                with state.lock:
                    state.active -= 1

        def _answer(self, path: str) -> None:
            with state.lock:
                broken = state.broken.get(path)
                how = broken.pop(0) if broken else None
            data = state.files.get(path)
            if how == "cut":
                self._send(200, {"Content-Length": "1000"}, b"half")
            elif how is not None:
                status, headers = how if isinstance(how, tuple) else (how, {})
                self._send(status, headers, b"")
            elif data is None:
                self._send(404, {}, b"")
            else:
                self._file(path, data)

        def _file(self, path: str, data: bytes) -> None:
            tag = f'"{sha256(data).hexdigest()[:12]}"'
            headers = {"ETag": tag} if state.validators else {}
            if state.validators and self.headers["If-None-Match"] == tag:
                state.unchanged[path] += 1
                self._send(304, headers, b"")
                return
            state.sent[path] += 1
            self._send(200, {**headers, "Content-Length": str(len(data))}, data)

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Disable logging."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    if state.hold is not None:
        state.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()
