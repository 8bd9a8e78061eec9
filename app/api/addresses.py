"""The address that the API listens on, for one process or for several that share a port."""

from __future__ import annotations

import socket

from app.errors import LookalikeError

BACKLOG = 2048

CLOSING_S = 10
"""Seconds for requests in progress when the server ends."""


def family_of(host: str) -> socket.AddressFamily:
    """IPv6 for an address with colons, else IPv4."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket with this address, which does not listen yet; other processes of this user may bind
    a `shared` one too. Raises OSError, and OverflowError for a port that none can be."""
    made = socket.socket(family_of(host))
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made


def url_of(host: str, port: int) -> str:
    """The address as clients on this machine name it."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def refused(host: str, port: int) -> LookalikeError:
    """The error for an address that cannot be listened on."""
    return LookalikeError(
        f"The API cannot be served on {host} port {port}. Choose another with --host and --port, "
        "or end what listens there."
    )
