"""Connections to hosts of the web: to addresses that may be asked, and no longer than allowed."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from typing import Any, cast

from app.images.public_address import Deadline, ResolvedAddress, resolve
from app.images.url import PictureUrl


@contextmanager
def answer(
    address: PictureUrl,
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


@contextmanager
def _connected(found: Sequence[ResolvedAddress], deadline: Deadline) -> Iterator[socket.socket]:
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


def _request(address: PictureUrl) -> bytes:
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
