"""Fixtures of the tests of pictures."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from support.download_site import HERE, Site, serving


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses connected to; all but loopback are refused, as if no server listened there."""
    connections: list[str] = []
    connect = socket.socket.connect

    def record_connect(self: socket.socket, address: Any) -> None:
        connections.append(address[0])
        if address[0] == HERE:
            address = ("127.0.0.1", address[1])
        if not ip_address(address[0]).is_loopback:
            raise ConnectionRefusedError(111, "Connection refused")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record_connect)
    return connections


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


@pytest.fixture
def site(port: int) -> str:
    Site.requests.clear()
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def resolve_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes every name resolve to these addresses, one per lookup; returns the list of lookups."""
    lookup = socket.getaddrinfo

    def set_answers(*answers: str | list[str]) -> list[str]:
        lookups: list[str] = []
        left = iter(answers)

        def fake(host: str, *args: Any, **options: Any) -> list[Any]:
            lookups.append(host)
            answer = next(left)
            names = [answer] if isinstance(answer, str) else answer
            return [row for name in names for row in lookup(name, *args, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", fake)
        return lookups

    return set_answers
