"""`app.encoders.hub`: which answers count as a hub that can be reached."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app.encoders import hub
from app.errors import ModelUnavailable


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A hub that answers each request with this status."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent() -> Iterator[str]:
    """A hub that takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is empty, and a download fails at once."""

    def no_snapshot(*_: object, offline: bool) -> None:
        raise FileNotFoundError("offline" if offline else "no such model")

    monkeypatch.setattr(hub, "_snapshot", no_snapshot)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)


def test_a_hub_that_does_not_answer_in_time_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The request has ended with its timeout when the answer is looked at."""
    real = threading.Thread.join
    monkeypatch.setattr(threading.Thread, "join", lambda thread, _=None: real(thread))
    monkeypatch.setattr(hub, "PROBE_S", 0.1)
    with silent() as address:
        monkeypatch.setattr(hub.constants, "ENDPOINT", address)
        with pytest.raises(ModelUnavailable, match=r"cannot be reached \(.*timed out"):
            hub.fetch("absent/model", cache=tmp_path)


@pytest.mark.parametrize(
    ("status", "reason"), [(200, "the download failed"), (404, "the download failed"),
                           (503, r"cannot be reached \(status 503\)")]
)  # fmt: skip
def test_a_hub_with_any_status_but_a_server_error_can_be_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, reason: str
) -> None:
    monkeypatch.setattr(hub, "PROBE_S", 300)
    with answering(status) as address:
        monkeypatch.setattr(hub.constants, "ENDPOINT", address)
        with pytest.raises(ModelUnavailable, match=reason):
            hub.fetch("absent/model", cache=tmp_path)
