"""The small HTTP server beside a process's work: /metrics for Prometheus, /healthz for whoever."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from app.errors import LookalikeError
from app.operations.health import HealthStatus

CLOSED_WITHIN_S = 0.1

HttpResponse = tuple[int, str, bytes]
"""Status, content type, body."""


class MetricsServer:
    """Serves until it is closed, from threads of its own."""

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, status: Callable[[], HealthStatus]
    ) -> None:
        """Listen on a TCP port (0: any that is free). Raises LookalikeError if it is taken."""
        try:
            self._server = _Server((host, port), _Handler)
        except (OSError, OverflowError) as exc:
            raise LookalikeError(
                f"Metrics cannot be served on {host} port {port}: {exc}. Choose another port."
            ) from exc
        self._server.answers = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: _health(status()),
        }
        self.address = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(CLOSED_WITHIN_S,), name="metrics", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; answers that are on their way are not waited for."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    answers: dict[str, Callable[[], HttpResponse]]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # seconds that a client may take to ask

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def _answer(self, *, send_body: bool) -> None:
        found = self.server.answers.get(self.path.partition("?")[0])
        status, kind, body = found() if found else (404, "text/plain", b"/metrics or /healthz\n")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Whoever asks every few seconds need not be in the log."""


def _health(status: HealthStatus) -> HttpResponse:
    body = json.dumps(status.as_dict(), default=str).encode()
    return (200 if status.healthy else 503), "application/json", body
