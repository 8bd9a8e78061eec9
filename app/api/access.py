"""Who may send which request: scopes, keys, rates, origins, and what needs no key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from app.api.problems import KeyMissing, KeyRefused, OriginRefused, ScopeMissing
from app.api.rate_limits import Rates
from app.operations.api_keys import ApiKey, ApiKeys, Scope

OPEN = ("/healthz", "/openapi.json", "/docs")
"""Addresses that need no key, and tell nothing about the catalogue."""

THUMBNAILS = "/v1/pictures/"
"""Thumbnails need no key either: pages show them by <img>, which sends none. Their address has the
sha256 of the picture, which only an answer or the picture itself tells."""

ADMIN = ("/v1/status", "/metrics")

WRITE_METHODS = ("PUT", "DELETE", "PATCH")


def required_scope(method: str, path: str) -> Scope | None:
    """The scope that a request needs; None: no key is needed."""
    if path in OPEN:
        return None
    if path.startswith(THUMBNAILS) and method == "GET":
        return None
    if path in ADMIN:
        return "admin"
    if method in WRITE_METHODS or path == "/v1/products:batch":
        return "write"
    return "search"


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from: the peer (address, port), the header Host, and the origin of the
    page that sends it, None outside of browsers."""

    peer: tuple[str, int] | None
    host: str
    origin: str | None


@dataclass(frozen=True, slots=True)
class Known:
    """The usable key of a header, if it has one, and whether any key was ever created."""

    key: ApiKey | None
    any_created: bool


class Access:
    """Checks requests. Thread-safe.

    With `open_locally`, for servers that listen on a loopback address only, requests from this
    machine need no key as long as none was ever created; they may read everything and write
    nothing.
    """

    def __init__(self, keys: ApiKeys, *, open_locally: bool) -> None:
        self._keys = keys
        self._open_locally = open_locally
        self._rates = Rates()

    def look_up(self, authorization: bytes | None) -> Known:
        """What the database knows now of a header Authorization."""
        if authorization is None:
            return Known(None, self._keys.any_created())
        kind, _, text = authorization.decode("latin-1").partition(" ")
        key = self._keys.authenticate(text.strip()) if kind.lower() == "bearer" else None
        return Known(key, True)

    async def authenticate(
        self,
        authorization: bytes | None,
        needed: Scope,
        caller: Caller,
        look_up: Callable[[bytes | None], Awaitable[Known]],
    ) -> ApiKey | None:
        """The key of a request; None if it needs none. `look_up` asks `look_up` in a thread.

        Raises KeyMissing, KeyRefused and OriginRefused.
        """
        if authorization is None:
            await self._check_open(needed, caller, look_up)
            return None
        key = (await look_up(authorization)).key
        if key is None:
            raise KeyRefused()
        if caller.origin is not None and caller.origin not in key.origins:
            raise OriginRefused()
        return key

    def authorise(self, key: ApiKey, needed: Scope) -> None:
        """Count a request with this key. Raises ScopeMissing and RateExceeded."""
        if not key.allows(needed):
            raise ScopeMissing(
                f"The key has the scope {key.scope}, and this request needs {needed}: create one "
                f"with `lookalike key create --scope {needed}`."
            )
        if key.rate is not None:
            self._rates.take(key.id, key.rate)

    def is_origin(self, origin: str) -> bool:
        """Whether pages of this origin may use a key."""
        return self._keys.is_origin(origin)

    async def _check_open(
        self, needed: Scope, caller: Caller, look_up: Callable[[bytes | None], Awaitable[Known]]
    ) -> None:
        local = self._open_locally and _is_local(caller)
        if not local or caller.origin is not None or (await look_up(None)).any_created:
            raise KeyMissing()
        if needed == "write":
            raise KeyMissing(
                "Writing needs a key, also on this machine: create one with `lookalike key create "
                "--scope write`, and send it as `Authorization: Bearer lk_…`."
            )


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_local(caller: Caller) -> bool:
    """Whether the request comes from this machine and is meant for it: a page that gives its own
    name this machine's address (DNS rebinding) sends another Host."""
    try:
        named = urlsplit(f"//{caller.host}").hostname or ""
    except ValueError:
        return False
    return caller.peer is not None and is_loopback(caller.peer[0]) and is_loopback(named)
