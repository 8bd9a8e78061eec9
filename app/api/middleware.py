"""RequestMiddleware: what happens to each request before it reaches its endpoint.

In this order: CORS preflight, key and rate, the body within its limits, a place. Nothing of a body
is read for a request that is refused anyway.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote

import anyio

from app.api import problems
from app.api.access import Access, Caller, Known, required_scope
from app.api.coalescing import Coalesced
from app.api.request_bodies import (
    FORM_BYTES,
    MAX_JSON_BYTES,
    MAX_ROWS_BYTES,
    BodyBudget,
    ClientGone,
    check_json_depth,
    read_body,
)
from app.config import Settings
from app.errors import Busy, LookalikeError
from app.operations.metrics import ApiMetrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
T = TypeVar("T")

CHECKING_THREADS = 4
"""Threads that check keys: searches that wait do not delay them."""

PREFLIGHT_S = 600
"""Seconds for which a browser may keep the answer to a preflight request."""

SAFE_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
}

_log = logging.getLogger("lookalike.api")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """`requests` that are in the process at the same time, `body_s` seconds for a body, and
    `picture_bytes` of the largest picture."""

    requests: int
    body_s: float
    picture_bytes: int

    @classmethod
    def from_settings(cls, settings: Settings) -> RequestLimits:
        """The limits in the settings."""
        return cls(settings.api_requests, settings.api_body_s, settings.max_image_bytes)

    def bytes_of(self, path: str, content_type: str) -> int:
        """The largest body at this path with this content type."""
        if path == "/v1/products:batch":
            return MAX_ROWS_BYTES
        if path.startswith("/v1/products/"):  # with pictures, as parts of a form or in base64
            return max(MAX_ROWS_BYTES, self.picture_bytes + FORM_BYTES)
        if content_type == "multipart/form-data":
            return self.picture_bytes + FORM_BYTES
        return MAX_JSON_BYTES


class RequestMiddleware:
    """The ASGI application around that of the endpoints."""

    def __init__(
        self, app: AsgiApp, access: Access, limits: RequestLimits, metrics: ApiMetrics
    ) -> None:
        self._app = app
        self._access = access
        self._limits = limits
        self._metrics = metrics
        self._budget = BodyBudget()
        self._checking: anyio.CapacityLimiter | None = None
        self._keys = Coalesced(self._look_up)
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on; a lifespan is passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = routed_path(scope["raw_path"])
        answer = _Answer(send, time.monotonic())
        try:
            await self._respond(scope, receive, answer)
        except ClientGone:
            answer.status = 499
        except LookalikeError as exc:
            await answer.problem(problems.problem(exc), problems.headers_of(exc))
        except Exception:
            if answer.complete:
                return  # it was answered and logged
            _log.exception("a request failed: %s %s", scope["method"], scope["path"])
            if answer.status:
                raise  # which closes the connection: the client sees that something is missing
            await answer.problem(problems.internal_problem(), {})
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            seconds = time.monotonic() - answer.began
            self._metrics.answered(route, answer.status, seconds)

    async def _respond(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1") or None
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await self._preflight(scope, origin, answer)
            return
        needed = required_scope(scope["method"], scope["path"])
        if needed is not None:
            host = headers.get(b"host", b"").decode("latin-1")
            caller = Caller(scope.get("client"), host, origin)
            # Requests with one key that arrive together are checked by one look at the database,
            # which is taken after the last of them arrived.
            key = await self._access.authenticate(
                headers.get(b"authorization"), needed, caller, self._keys.get
            )
            if key is not None:
                answer.allow_origin(origin)
                self._access.authorise(key, needed)
                scope["api_key"] = key
        body = await self._body(scope, headers, receive)
        try:
            # Only now: bodies that arrive slowly take no place of others.
            with self._place():
                await self._app(scope, _replayed(body, receive), answer.send)
        finally:
            self._budget.give_back(len(body))

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places for requests. Raises Busy if there is none."""
        if self._running >= self._limits.requests:
            raise Busy("Too many requests at a time; try again in a moment.")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _body(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        content_type = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0]
        content_type = content_type.strip().lower()
        body = await read_body(
            receive, headers.get(b"content-length"), budget=self._budget,
            most=self._limits.bytes_of(scope["path"], content_type), seconds=self._limits.body_s,
        )  # fmt: skip
        try:
            if content_type.endswith("/json"):
                check_json_depth(body)
        except BaseException:
            self._budget.give_back(len(body))
            raise
        return body

    async def _preflight(self, scope: Scope, origin: str | None, answer: _Answer) -> None:
        """Tell a browser which requests a page of this origin may send; it sends no key with this
        question."""
        known = origin is not None and await self._in_thread(
            partial(self._access.is_origin, origin)
        )
        headers = {"Vary": "Origin"}
        if known and required_scope("GET", scope["path"]) in (None, "search"):
            assert origin is not None
            headers |= {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match",
                "Access-Control-Max-Age": str(PREFLIGHT_S),
            }
        await answer.empty(204, headers)

    async def _look_up(self, authorization: bytes | None) -> Known:
        return await self._in_thread(partial(self._access.look_up, authorization))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._checking is None:
            self._checking = anyio.CapacityLimiter(CHECKING_THREADS)
        return await anyio.to_thread.run_sync(call, limiter=self._checking)


class _Answer:
    """Sends an answer with the headers that every answer has. `status` is 0 until it has begun."""

    def __init__(self, send: Send, began: float) -> None:
        self._send = send
        self._origin: str | None = None
        self.began = began
        self.status = 0
        self.complete = False

    def allow_origin(self, origin: str | None) -> None:
        """Let pages of this origin read the answer, if it is the one that the key is for."""
        self._origin = origin

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            present = {name.lower() for name, _ in message["headers"]}
            more = [(k, v) for k, v in SAFE_HEADERS.items() if k not in present]
            if self._origin is not None:
                more += [
                    (b"access-control-allow-origin", self._origin.encode("latin-1")),
                    (b"access-control-expose-headers", b"ETag, Retry-After"),
                    (b"vary", b"Origin"),
                ]
            message = {**message, "headers": [*message["headers"], *more]}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.complete = True

    async def problem(self, document: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        headers = {"Content-Type": problems.CONTENT_TYPE, **headers}
        await self._whole(document["status"], headers, problems.encoded(document))

    async def empty(self, status: int, headers: Mapping[str, str]) -> None:
        await self._whole(status, headers, b"")

    async def _whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        if status != 204:
            headers = {**headers, "Content-Length": str(len(body))}
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})


def routed_path(raw: bytes) -> str:
    """The path that routes are compared with: decoded, except for slashes within a part of it.

    A sku may have a slash, which is sent as %2F; it stays so here, and a percent sign is %25.
    """
    parts = raw.decode("latin-1").split("/")
    return "/".join(unquote(part).replace("%", "%25").replace("/", "%2F") for part in parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read as one message, then what follows it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
