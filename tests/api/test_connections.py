"""An abused server goes on answering: slow heads and bodies, many connections, full memory."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.api import connections, request_bodies
from app.api.problems import BodyTimeout, BodyTooLarge
from app.api.request_bodies import BodyBudget, ClientGone, read_body
from app.bootstrap import App
from app.errors import Busy
from support.api_client import ApiClient, api_served
from support.servers import wait_until
from support.shop import add, numbered

PATIENCE_S = 120


@contextmanager
def connected(client: ApiClient, sent: bytes = b"") -> Iterator[socket.socket]:
    address = urlsplit(client.url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) as opened:
        opened.sendall(sent)
        yield opened


def received(opened: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    parts = []
    try:
        while part := opened.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.fixture
def server(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ApiClient]]:
    """Serves a small catalogue with other limits on connections and settings."""
    add(app, numbered(3))
    with ExitStack() as stack:

        def serve(*, settings: dict[str, object] | None = None, **options: float) -> ApiClient:
            monkeypatch.setattr(
                connections.limited_protocol, "__kwdefaults__",
                connections.limited_protocol.__kwdefaults__ | options,
            )  # fmt: skip
            app.settings = app.settings.model_copy(update=settings or {})
            return stack.enter_context(api_served(app))

        yield serve


def answers(client: ApiClient) -> bool:
    return client.post("/v1/search", {"sku": "P0001", "k": 1}).status == 200


def test_answers_are_sent_without_delay(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TCP_NODELAY the body of an answer waits for the client's acknowledgement."""
    assert (connections.IPPROTO_TCP, connections.TCP_NODELAY) == (
        socket.IPPROTO_TCP, socket.TCP_NODELAY,
    )  # fmt: skip
    made: list[int] = []
    base = connections.HttpProtocol
    original = base.connection_made

    def noting(protocol: Any, transport: asyncio.Transport) -> None:
        original(protocol, transport)
        opened = transport.get_extra_info("socket")
        protocol.loop.call_soon(
            lambda: made.append(opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        )

    monkeypatch.setattr(base, "connection_made", noting)
    with api_served(app) as client:
        assert client.get("/healthz").status == 200
    assert made == [1]


def test_a_request_that_does_not_arrive_is_given_up(server: Callable[..., ApiClient]) -> None:
    client = server(head_s=0.3)
    for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: "):
        with connected(client, sent) as opened:
            assert received(opened) == b""
    first = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    with connected(client, first + b"GET /healthz HTTP/1.1\r\nX-Slow: ") as opened:
        assert received(opened).count(b"HTTP/1.1 200") == 1


def test_a_head_of_any_size_is_not_read(server: Callable[..., ApiClient]) -> None:
    client = server()
    large = b"X-Long: " + b"a" * 1000 + b"\r\n"
    first = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
    for before in (b"", first + b"\r\n"):
        with connected(client, before + first) as opened, suppress(ConnectionError):
            for _ in range(10_000):  # 10 MB
                opened.sendall(large)
            raise AssertionError("the head was read")
    with connected(client, first + large * 20 + b"Connection: close\r\n\r\n") as opened:
        assert received(opened).startswith(b"HTTP/1.1 200")


def test_many_silent_connections_keep_nobody_out(server: Callable[..., ApiClient]) -> None:
    client = server(head_s=PATIENCE_S, most_waiting=20)
    with ExitStack() as stack:
        opened = [stack.enter_context(connected(client)) for _ in range(150)]
        assert answers(client)
        assert received(opened[0]) == b""  # the one that has waited longest was closed
        opened[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in received(opened[-1])


def test_a_slow_body_is_given_up_and_takes_no_place(server: Callable[..., ApiClient]) -> None:
    client = server(settings={"api_body_s": 0.5, "api_requests": 5})
    head = (
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100\r\n\r\n{"sku"'
    )
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(client, head)) for _ in range(20)]
        assert answers(client)
        assert all(b"HTTP/1.1 408" in each.recv(65536) for each in slow)


def test_many_slow_bodies_keep_nobody_out(server: Callable[..., ApiClient]) -> None:
    client = server(settings={"api_body_s": PATIENCE_S}, head_s=PATIENCE_S, most_waiting=20)
    head = (
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    )
    with ExitStack() as stack:
        slow = []
        for _ in range(30):
            slow.append(stack.enter_context(connected(client, head)))
            assert b"100 Continue" in slow[-1].recv(65536)  # its body is waited for
        assert received(slow[0]) == b""  # the one that has waited longest was closed
        assert answers(client)


def test_requests_beyond_the_places_are_refused_at_once(
    server: Callable[..., ApiClient], app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server(settings={"api_requests": 2})
    release, search = threading.Event(), app.search.search
    running: list[int] = []

    def slow(*arguments: object) -> object:
        running.append(1)
        assert release.wait(PATIENCE_S)
        return search(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(app.search, "search", slow)
    threads = [threading.Thread(target=answers, args=(client,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(running) == 2, "the searches do not start")
    refused = client.post("/v1/search", {"sku": "P0001"})
    release.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert refused.status == 503 and refused.headers["retry-after"]
    assert answers(client)


def test_wrong_keys_do_not_keep_right_ones_out(server: Callable[..., ApiClient], app: App) -> None:
    client = server()
    right = client.with_key(app.api_keys.create("search"))
    wrong = client.with_key("lk_" + "a" * 12 + "_" + "b" * 43)
    assert {wrong.post("/v1/search", {}).status for _ in range(30)} == {401}
    assert answers(right)


async def _body(*parts: bytes, seconds: float = 60.0, most: int = 10, budget: BodyBudget) -> bytes:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False

    async def receive() -> dict[str, object]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    return await read_body(receive, None, most=most, seconds=seconds, budget=budget)


def test_bodies_are_counted_while_they_are_held() -> None:
    budget = BodyBudget(limit=12)
    assert asyncio.run(_body(b"12345", b"678", budget=budget)) == b"12345678"
    assert budget.held == 8
    with pytest.raises(Busy):
        asyncio.run(_body(b"1", b"2345", budget=budget))
    with pytest.raises(BodyTooLarge):
        asyncio.run(_body(b"1", b"2345", most=3, budget=budget))
    assert budget.held == 8
    budget.give_back(8)
    assert budget.held == 0


def test_a_body_that_stops_is_given_up_and_not_counted() -> None:
    budget = BodyBudget()

    async def silent() -> dict[str, object]:
        if budget.held:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"123", "more_body": True}

    with pytest.raises(BodyTimeout, match=r"0\.05 s"):
        asyncio.run(read_body(silent, None, most=10, seconds=0.05, budget=budget))

    async def gone() -> dict[str, object]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        asyncio.run(read_body(gone, None, most=10, seconds=60, budget=budget))
    assert budget.held == 0


def test_the_depth_of_json_ignores_what_is_in_texts() -> None:
    request_bodies.check_json_depth(b'{"a": "[[[[", "b": "\\"[[[[", "c": [1]}', most=2)
    with pytest.raises(request_bodies.InvalidRequest):
        request_bodies.check_json_depth(b'[{"a": [1]}]', most=2)
    request_bodies.check_json_depth(b"[]" * 100, most=1)
