"""Network backend for httpcore that connects to public addresses only, within a deadline."""

from __future__ import annotations

import queue
import select
import socket
import ssl
import threading
import time
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from httpcore2 import NetworkBackend, NetworkStream

from app.errors import BadImage

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that is routed in public (RFC 4291, section 2.4); the rest is local, or reserved."""
NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind a translator (RFC 6052): the last 32 bits."""


class Deadline:
    """A point in time that bounds a whole download."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds to go, above 0. Raises TimeoutError when the deadline has passed."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class PrivateNetwork(BadImage):
    """Nothing is downloaded from private networks."""


class PublicNetwork(NetworkBackend):
    """Opens connections whose operations all end at one deadline.

    A host is resolved once and the checked address is connected to, so a name that resolves to a
    private address a moment later (DNS rebinding) gains nothing. Each connection receives at most
    `max_bytes`. With `allow_private`, every address is accepted.
    """

    def __init__(
        self, deadline: Deadline, *, allow_private: bool, max_bytes: int, shown: str | None = None
    ) -> None:
        self._deadline = deadline
        self._allow_private = allow_private
        self._max_bytes = max_bytes
        self._shown = shown

    def named(self, shown: str) -> PublicNetwork:
        """The same network, whose errors name the host as `shown`."""
        return PublicNetwork(
            self._deadline, allow_private=self._allow_private, max_bytes=self._max_bytes,
            shown=shown,
        )  # fmt: skip

    @property
    def limits(self) -> tuple[Deadline, int]:
        """When a download ends, and the bytes that it may receive."""
        return self._deadline, self._max_bytes

    def connect_tcp(self, host: str, port: int, *_: Any, **_options: Any) -> NetworkStream:
        """A connection to the first address that accepts; each gets its share of the time left.

        Raises BadImage if the host does not exist or one of its addresses is not public, OSError
        and TimeoutError if no address accepts.
        """
        shown = self._shown or host
        addresses = _resolve(host, port, self._deadline, shown)
        if not self._allow_private and not all(is_public(ip_address(a[0])) for _, a in addresses):
            raise PrivateNetwork(
                f"{shown} is in a private network, from which nothing is downloaded unless the "
                "operator sets LOOKALIKE_PRIVATE_ADDRESSES=true. Download the file with a browser, "
                "and name or upload that."
            )
        for untried, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(self._deadline.left() / untried)
                connection.connect(address)
                return BoundedStream(connection, self._deadline, self._max_bytes)
            except OSError:
                connection.close()
                if untried == 1:
                    raise
        raise OSError("it has no address")


class BoundedStream(NetworkStream):
    """A connection that ends at a deadline, and receives at most `max_bytes`."""

    def __init__(self, connection: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        self._connection = connection
        self._deadline = deadline
        self._bytes_left = max_bytes

    def renew(self, network: PublicNetwork) -> None:
        """Begin another download, under the limits of this network."""
        self._deadline, self._bytes_left = network.limits

    def get_extra_info(self, info: str) -> Any:
        """Whether the stream `is_readable` without waiting; an idle one is when its server has
        closed it. None for any other `info`."""
        if info != "is_readable":
            return None
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(0))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._connection.settimeout(self._deadline.left())
        data = self._connection.recv(max_bytes)
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise OSError("it sends more data than is allowed")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._connection.settimeout(self._deadline.left())
        self._connection.sendall(buffer)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **_more: Any
    ) -> NetworkStream:
        try:
            self._connection.settimeout(self._deadline.left())
            secure = ssl_context.wrap_socket(self._connection, server_hostname=server_hostname)
        except BaseException:
            self.close()
            raise
        return BoundedStream(secure, self._deadline, self._bytes_left)

    def close(self) -> None:
        self._connection.close()


def is_public(ip: IPv4Address | IPv6Address) -> bool:
    """Whether an address, and any IPv4 address embedded in it, is publicly routed."""
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        return ip in GLOBAL_UNICAST and ip.is_global
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _resolve(
    host: str, port: int, deadline: Deadline, shown: str
) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """All addresses of a host, as `socket.connect` takes them.

    `getaddrinfo` has no time limit; it runs in a thread that is abandoned at the deadline.
    """
    results: queue.Queue[list[Any] | Exception] = queue.Queue()

    def lookup() -> None:
        try:
            results.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as exc:
            results.put(exc)

    threading.Thread(target=lookup, name="getaddrinfo", daemon=True).start()
    try:
        result = results.get(timeout=deadline.left())
    except queue.Empty as exc:
        raise TimeoutError from exc
    if isinstance(result, Exception):
        raise BadImage(f"{shown} does not exist; check the web address for typos.") from result
    return [(row[0], row[4]) for row in result]
