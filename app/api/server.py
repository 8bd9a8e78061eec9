"""Serves the HTTP API with uvicorn."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from types import TracebackType

import uvicorn

from app.api import addresses
from app.api.access import is_loopback
from app.api.application import create_api
from app.api.connections import limited_protocol
from app.bootstrap import App

FILES = 16_384
"""Open files that this process asks the system for; each connection is one."""

SWITCH_S = 0.001
"""Seconds that a thread which computes may keep the interpreter from the thread that receives and
sends; five times as many by default, which it would wait for several times in each request."""


class ApiServer:
    """A server that is bound to its address; `run` answers until a signal ends it.

    `host` is a name or an address, and port 0 any free port. With `shared`, other processes of this
    user may listen on it too. Raises LookalikeError if the address cannot be listened on.
    """

    def __init__(self, app: App, host: str, port: int, *, shared: bool = False) -> None:
        self._config = uvicorn.Config(
            create_api(app, open_locally=is_loopback(host)),
            host=host,
            port=port,
            http=limited_protocol(),
            ws="none",
            lifespan="on",
            interface="asgi3",
            proxy_headers=False,  # who sends X-Forwarded-For could call itself local
            server_header=False,
            access_log=False,
            log_config=None,
            backlog=addresses.BACKLOG,
            timeout_graceful_shutdown=addresses.CLOSING_S,
        )
        self._server = uvicorn.Server(self._config)
        try:
            self._socket = addresses.bound(host, port, shared=shared)
            self._socket.listen(addresses.BACKLOG)  # from here on clients may connect, and wait
        except (OSError, OverflowError) as exc:
            raise addresses.refused(host, port) from exc
        self.address = addresses.url_of(host, self._socket.getsockname()[1])

    def __enter__(self) -> ApiServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def run(self) -> None:
        """Answer requests until SIGINT or SIGTERM, or until `stop`."""
        _allow_connections()
        sys.setswitchinterval(SWITCH_S)
        self._server.run(sockets=[self._socket])

    @property
    def started(self) -> bool:
        """Whether requests are answered."""
        return self._server.started

    def stop(self) -> None:
        """End `run` from another thread."""
        self._server.should_exit = True


def _allow_connections() -> None:
    """Raise the limit on open files, where it is low."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
