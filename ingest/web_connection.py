"""Connections to hosts of the web: to addresses that may be asked, and no longer than allowed."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, cast

from app.errors import BadImage
from ingest.web_address import WebAddress

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that is routed in public (RFC 4291, section 2.4); the rest is local, or reserved."""

NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind a translator (RFC 6052): the last 32 bits."""

Found = tuple[socket.AddressFamily, Any]
"""The family of an address, and the address as `socket.connect` takes it."""


class Deadline:
    """The moment by which everything must have come; `left` raises TimeoutError beyond it."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds to go, above 0."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@contextmanager
def answer(
    address: WebAddress,
    deadline: Deadline,
    tls: ssl.SSLContext,
    *,
    allow_private: bool,
    most: int,
) -> Iterator[HTTPResponse]:
    """The head of what a host answers to a request for an address; its body is there to be read.

    At most `most` bytes are taken from the connection, head and framing included.

    Raises BadImage for a host that does not exist or may not be asked; OSError, TimeoutError and
    HTTPException for what goes wrong on the way.
    """
    found = resolve(address, deadline, allow_private=allow_private)
    with _connected(found, deadline) as plain:
        plain.settimeout(deadline.left())
        secure = address.scheme == "https"
        wire = tls.wrap_socket(plain, server_hostname=address.host) if secure else plain
        with wire:
            wire.settimeout(deadline.left())
            wire.sendall(_request(address))
            # It asks for nothing but a file to read from.
            response = HTTPResponse(cast(socket.socket, _Timed(wire, deadline, most)), method="GET")
            with response:
                response.begin()
                yield response


def resolve(address: WebAddress, deadline: Deadline, *, allow_private: bool) -> list[Found]:
    """The addresses of a host, each of which may be asked. Raises BadImage.

    They are looked up once and connected to as they are: a name that leads elsewhere a moment
    later leads nowhere here.
    """
    found = _looked_up(address, deadline)
    public = (is_public(ip_address(place[0])) for _, place in found)
    if not allow_private and not all(public):
        raise BadImage(
            f"{address.host} leads into a private network, where nothing is fetched from. "
            "Download the picture and upload its file."
        )
    return found


def is_public(ip: IPv4Address | IPv6Address) -> bool:
    """Whether an address, and the one that may be embedded in it, belongs to the public net."""
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        return ip in GLOBAL_UNICAST and ip.is_global
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _looked_up(address: WebAddress, deadline: Deadline) -> list[Found]:
    """All addresses of a host; the lookup itself knows no time limit, so it is left behind."""
    answers: queue.Queue[list[Found] | Exception] = queue.Queue()

    def look_up() -> None:
        try:
            rows = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            answers.put([(row[0], row[4]) for row in rows])
        except Exception as exc:
            answers.put(exc)

    threading.Thread(target=look_up, name="look up a host", daemon=True).start()
    try:
        found = answers.get(timeout=deadline.left())
    except queue.Empty as exc:
        raise TimeoutError from exc
    if isinstance(found, Exception):
        raise BadImage(
            f"No host called {address.host} is known here; check the address for slips."
        ) from found
    return found


@contextmanager
def _connected(found: Sequence[Found], deadline: Deadline) -> Iterator[socket.socket]:
    """A connection to the first address that takes one; each has its share of the time left."""
    for number, (family, place) in enumerate(found):
        with socket.socket(family, socket.SOCK_STREAM) as plain:
            plain.settimeout(deadline.left() / (len(found) - number))
            try:
                plain.connect(place)
            except OSError:
                if number == len(found) - 1:
                    raise
                continue
            yield plain
            return


def _request(address: WebAddress) -> bytes:
    lines = (
        f"GET {address.path} HTTP/1.1",
        f"Host: {address.authority}",
        "User-Agent: Lookalike",
        "Accept: image/*,*/*;q=0.5",
        # A few KB could unfold to any size.
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class _Timed(RawIOBase):
    """What comes in over a connection, where each wait ends at the deadline of the whole.

    And no more than `most` bytes: http.client reads all there is where a chunk has the size -1.
    """

    def __init__(self, wire: socket.socket, deadline: Deadline, most: int) -> None:
        self._wire = wire
        self._deadline = deadline
        self._left = most

    def makefile(self, _mode: str) -> BufferedReader:
        return BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._wire.settimeout(self._deadline.left())
        with suppress(ssl.SSLEOFError):  # many servers hang up without saying so
            count = self._wire.recv_into(buffer)
            self._left -= count
            if self._left < 0:
                raise OSError("it sends more than is read")
            return count
        return 0
