"""Resolves a host name to a public IP address within a deadline."""

from __future__ import annotations

import queue
import socket
import threading
import time
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from app.errors import BadImage
from app.images.url import PictureUrl

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that is routed in public (RFC 4291, section 2.4); the rest is local, or reserved."""


NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind a translator (RFC 6052): the last 32 bits."""


ResolvedAddress = tuple[socket.AddressFamily, Any]
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


def resolve(
    address: PictureUrl, deadline: Deadline, *, allow_private: bool
) -> list[ResolvedAddress]:
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


def _looked_up(address: PictureUrl, deadline: Deadline) -> list[ResolvedAddress]:
    """All addresses of a host; the lookup itself knows no time limit, so it is left behind."""
    answers: queue.Queue[list[ResolvedAddress] | Exception] = queue.Queue()

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
