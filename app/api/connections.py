"""Limits on connections: how long one may stay silent, how large the head of a request may be, and
how many may be silent at a time.

uvicorn closes a connection that is idle between two requests. It waits without limit for the
first request, and for the rest of one that arrives slowly; so these are closed here. Its faster
parser, httptools, takes heads of any size.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HttpProtocol
except ModuleNotFoundError:  # httptools has no wheel for this system
    from uvicorn.protocols.http.h11_impl import H11Protocol as HttpProtocol  # type: ignore

HEAD_S = 10.0
"""Seconds in which the head of a request must arrive."""

MAX_HEAD_BYTES = 65_536
"""Bytes of the head of a request, its address and headers."""

STALLED_S = 60.0
"""Seconds after which a client that does not read its answer is disconnected."""

IPPROTO_TCP, TCP_NODELAY = 6, 1
"""As in the module socket. asyncio sets the option only where the protocol of the socket is named,
which uvicorn's is not; without it each answer on a connection in use is delayed by about 40 ms."""

MAX_WAITING = 2000
"""Connections whose request is not complete; beyond, the one that has waited longest is closed."""


def limited_protocol(
    *, head_s: float = HEAD_S, stalled_s: float = STALLED_S, most_waiting: int = MAX_WAITING
) -> type[HttpProtocol]:
    """HTTP/1.1 of uvicorn with these limits, for one server."""
    waiting: OrderedDict[HttpProtocol, asyncio.TimerHandle | None] = OrderedDict()

    class LimitedProtocol(HttpProtocol):
        """A connection."""

        _stalled: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            self._await_request()

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            in_body = before is not None and before.more_body
            super().data_received(data)
            if in_body or self.cycle is not before:
                self._head_bytes = 0
            else:  # all of it belongs to the head of the next request
                self._limit_head(len(data))
            self._mark()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._mark()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            if self._stalled is not None:
                self._stalled.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(stalled_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

        def _limit_head(self, received: int) -> None:
            """Close a connection whose next request has too large a head."""
            self._head_bytes += received
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

        def _mark(self) -> None:
            """Note whether the connection waits for a request, or for the rest of one."""
            if self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete:
                if waiting.get(self) is None:
                    self._await_request()
            elif self.cycle.more_body:
                self._forget_timer()  # waits on; the middleware limits the time for a body
            else:
                self._forget()

        def _await_request(self) -> None:
            self._forget()
            waiting[self] = self.loop.call_later(head_s, self.transport.abort)
            self._make_room()

        def _make_room(self) -> None:
            while len(waiting) > most_waiting:
                longest, timer = waiting.popitem(last=False)
                if timer is not None:
                    timer.cancel()
                longest.transport.abort()

        def _forget_timer(self) -> None:
            timer = waiting.get(self)
            if timer is not None:
                timer.cancel()
                waiting[self] = None

        def _forget(self) -> None:
            self._forget_timer()
            waiting.pop(self, None)

    return LimitedProtocol
