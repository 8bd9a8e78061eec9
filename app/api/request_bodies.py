"""Limits on the bodies of requests: size, time, nesting, and bytes of all requests together."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from app.api.problems import BodyTimeout, BodyTooLarge, InvalidRequest
from app.errors import Busy

Receive = Callable[[], Awaitable[Any]]

MAX_JSON_BYTES = 2_000_000
"""Largest JSON document; a hundred queries with vectors of 1,000 numbers fit."""

MAX_JSON_DEPTH = 16
"""Deepest nesting of lists and objects in JSON."""

MAX_ROWS_BYTES = 64_000_000
"""Largest body of a batch of products, pictures included."""

FORM_BYTES = 100_000
"""Bytes of a form besides its file."""

MAX_BUFFERED = 512_000_000
"""Bytes of bodies that all requests of this process hold at the same time."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


@dataclass(slots=True)
class BodyBudget:
    """Counts the bytes of bodies in memory. For one event loop."""

    limit: int = MAX_BUFFERED
    held: int = 0

    def take(self, count: int) -> None:
        """Count these bytes. Raises Busy if there would be too many."""
        if self.held + count > self.limit:
            raise Busy("Too many uploads at a time; try again in a moment.")
        self.held += count

    def give_back(self, count: int) -> None:
        """Count these bytes no more."""
        self.held -= count


class ClientGone(Exception):
    """The client closed the connection before the body was complete."""


async def read_body(
    receive: Receive, declared: bytes | None, *, most: int, seconds: float, budget: BodyBudget
) -> bytes:
    """The body of a request; its bytes are counted in `budget`, also where this raises nothing.

    `declared` is the header Content-Length. Raises BodyTooLarge beyond `most` bytes, BodyTimeout
    after so many seconds, Busy if all requests hold too many bytes, and ClientGone.
    """
    if declared is not None and declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone()
                part = message.get("body", b"")
                if len(body) + len(part) > most:
                    raise _too_large(most)
                budget.take(len(part))
                body += part
                if not message.get("more_body"):
                    return bytes(body)
    except BaseException as exc:
        budget.give_back(len(body))
        if isinstance(exc, TimeoutError):
            raise BodyTimeout(
                f"The body did not arrive within {seconds:g} s; send it again."
            ) from exc
        raise


def check_json_depth(document: bytes, most: int = MAX_JSON_DEPTH) -> None:
    """Raise InvalidRequest if a JSON document is nested more than `most` levels deep."""
    if document.count(b"[") + document.count(b"{") <= most:
        return
    depth = 0
    for token in _TOKEN.finditer(document):
        first = token[0][:1]
        if first in b"[{":
            depth += 1
            if depth > most:
                raise InvalidRequest(
                    f"The JSON is nested more than {most} levels deep; no request needs that."
                )
        elif first != b'"':
            depth -= 1


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body has more than the {most:,} bytes that are allowed here; make pictures smaller, "
        "or send less at a time."
    )
