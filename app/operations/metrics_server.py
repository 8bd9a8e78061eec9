"""HTTP server for monitoring a process: /metrics for Prometheus, /healthz for health checks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from app.errors import LookalikeError
from app.operations.health import HealthStatus

POLL_INTERVAL_S = 0.1
"""How often the server thread checks whether to stop; `close` takes up to this long."""

HttpResponse = tuple[int, str, bytes]
"""Status, content type, body."""


class MetricsServer:
    """Serves from background threads until it is closed."""

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, health: Callable[[], HealthStatus]
    ) -> None:
        """Listen on a TCP port (0: any free port). Raises LookalikeError if it is in use."""
        try:
            self._server = _Server((host, port), _Handler)
        except (OSError, OverflowError) as exc:
            raise LookalikeError(
                f"Metrics cannot be served on {host} port {port}: {exc}. Choose another port."
            ) from exc
        self._server.routes = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: _health(health()),
        }
        self.address = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_INTERVAL_S,), name="metrics", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, without waiting for responses in progress."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    routes: dict[str, Callable[[], HttpResponse]]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # seconds that a client may take to send its request

    def do_GET(self) -> None:
        self._respond(send_body=True)

    def do_HEAD(self) -> None:
        self._respond(send_body=False)

    def _respond(self, *, send_body: bool) -> None:
        route = self.server.routes.get(self.path.partition("?")[0])
        status_code, content_type, body = (
            route() if route else (404, "text/plain", b"/metrics or /healthz\n")
        )
        self.send_response(status_code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests of monitoring systems, every few seconds, are not logged."""


def _health(health: HealthStatus) -> HttpResponse:
    body = json.dumps(health.as_dict(), default=str).encode()
    return (200 if health.healthy else 503), "application/json", body
