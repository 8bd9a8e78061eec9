"""ApiKeys: the keys of the HTTP API, and the secret that all its processes share.

A key is `lk_<id>_<secret>`. The secret is 256 random bits, so its plain SHA-256 is stored: a slow
hash protects passwords, which can be guessed, and 256 random bits cannot.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal, TypeVar, get_args

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.db.engine import check_schema
from app.db.queries import api_keys
from app.db.queries.api_keys import KeyRow
from app.db.text import check_text
from app.errors import BadInput, DatabaseUnavailable, UnknownKey

Scope = Literal["search", "write", "admin"]

Records = Literal["nothing", "results", "queries"]
"""What is recorded of searches with a key: nothing, the products shown, or the query too."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
"""From the least to the most; each allows what those before it allow."""

RECORDS: tuple[Records, ...] = get_args(Records)

KEY = re.compile(r"lk_([a-z2-7]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?", re.ASCII)
LIFETIME = re.compile(r"(\d{1,5})([hd])", re.ASCII)
RATE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(?:/(s|min|h))?", re.ASCII)
SECONDS = {"s": 1, "min": 60, "h": 3600, None: 1}

SECRET_BYTES = 32

CURSORS = "cursors"
"""The use of the secret that cursors are signed with."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `rate` is in requests a second, None: no limit; `origins` are those
    whose pages may use it in a browser; `records` what is recorded of searches with it; `state` is
    "usable", "expired" or "revoked"."""

    id: str
    name: str
    scope: Scope
    rate: float | None
    origins: tuple[str, ...]
    records: Records
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    state: str

    def allows(self, scope: Scope) -> bool:
        """Whether the key's scope includes this one."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


class ApiKeys:
    """Creates, lists, revokes and checks keys. Thread-safe; no key is cached.

    `fast_engine` answers what every request asks, in one round trip; where one of its connections
    fails, `engine` answers.
    """

    def __init__(self, engine: Engine, fast_engine: Engine) -> None:
        self._engine = engine
        self._fast_engine = fast_engine
        self._created = False

    def create(
        self,
        scope: Scope,
        *,
        name: str = "",
        rate: float | None = None,
        expires_at: datetime | None = None,
        origins: Sequence[str] = (),
        records: Records = "results",
    ) -> str:
        """Create a key and return it: it cannot be shown again.

        Raises BadInput for a rate that is not positive, an expiry in the past, and origins that are
        malformed or belong to a key that is not for searches only.
        """
        check_text("name", name)
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise BadInput(f"The rate is {rate}; it must be more than 0 requests a second.")
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise BadInput(f"The key would have expired already, at {expires_at:%Y-%m-%d %H:%M}.")
        if origins and scope != "search":
            raise BadInput(
                f"A key of the scope {scope} cannot have origins: everybody who opens the page can "
                "read the key. Create one with --scope search for browsers."
            )
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise BadInput(
                    f"{origin!r} is not an origin; write https://shop.example, in lower case and "
                    "without a path."
                )
        id_ = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(12))
        secret = secrets.token_urlsafe(SECRET_BYTES)
        with self._engine.begin() as connection:
            check_schema(connection)
            api_keys.insert(
                connection, id_, name, scope, _digest(secret), rate, origins, records, expires_at
            )
            # Here, because a process that searches a replica cannot store it when it needs it.
            api_keys.store_secret(connection, CURSORS, secrets.token_bytes(SECRET_BYTES))
        return f"lk_{id_}_{secret}"

    def listed(self) -> list[ApiKey]:
        """All keys, the newest first."""
        with self._engine.connect() as connection:
            check_schema(connection)
            return [_key(row) for row in api_keys.listed(connection)]

    def revoke(self, id_: str) -> None:
        """Revoke a key: the next request with it is refused. Raises UnknownKey."""
        check_text("id", id_)
        with self._engine.begin() as connection:
            check_schema(connection)
            if not api_keys.revoke(connection, id_):
                raise UnknownKey(f"No key has the id {id_!r}; `lookalike key list` shows the ids.")

    def authenticate(self, text: str) -> ApiKey | None:
        """The usable key that this is; None for any other text.

        The digests are compared in constant time.
        """
        parts = KEY.fullmatch(text)
        if parts is None:
            return None
        id_, secret = parts.groups()
        row = self._ask(partial(api_keys.find, id_=id_))
        expected = b"" if row is None else row.digest
        if not hmac.compare_digest(expected, _digest(secret)) or row is None or not row.usable:
            return None
        return _key(row)

    def any_created(self) -> bool:
        """Whether a key was ever created, also one that is revoked."""
        if not self._created:  # keys are never deleted
            self._created = self._ask(api_keys.any_created)
        return self._created

    def is_origin(self, origin: str) -> bool:
        """Whether a usable key may be used by pages of this origin."""
        if not ORIGIN.fullmatch(origin):
            return False
        with self._engine.connect() as connection:
            return api_keys.is_origin(connection, origin)

    def shared_secret(self, use: str) -> bytes:
        """The secret (32 random bytes) that all processes share for this use; created once."""
        with self._engine.begin() as connection:
            stored = api_keys.secret(connection, use)
            if stored is None:
                api_keys.store_secret(connection, use, secrets.token_bytes(SECRET_BYTES))
                stored = api_keys.secret(connection, use)
        assert stored is not None
        return stored

    def _ask(self, question: Callable[[api_keys.Execute], T]) -> T:
        with suppress(psycopg.Error, SQLAlchemyError, DatabaseUnavailable):
            raw = self._fast_engine.raw_connection()
            try:
                connection = raw.driver_connection
                assert isinstance(connection, psycopg.Connection)
                return question(partial(connection.execute, prepare=True, binary=True))
            except psycopg.Error:
                raw.invalidate()
                raise
            finally:
                raw.close()
        with self._engine.connect() as connection:
            return question(connection.exec_driver_sql)


def parse_rate(text: str) -> float:
    """Requests a second, from `5/s`, `30/min`, `1000/h` or a number. Raises BadInput."""
    parts = RATE.fullmatch(text.strip())
    rate = float(parts[1]) / SECONDS[parts[2]] if parts else 0.0
    if not rate:
        raise BadInput(f"The rate {text!r} is not of the form 5/s, 30/min or 1000/h.")
    return rate


def parse_expiry(text: str) -> datetime:
    """When a key expires, from `30d`, `12h` or a date such as 2031-05-01 (UTC). Raises BadInput."""
    if parts := LIFETIME.fullmatch(text.strip()):
        amount = int(parts[1])
        return datetime.now(UTC) + (
            timedelta(hours=amount) if parts[2] == "h" else timedelta(days=amount)
        )
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as exc:
        raise BadInput(f"{text!r} is not of the form 30d, 12h or 2031-05-01.") from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _key(row: KeyRow) -> ApiKey:
    state = "usable" if row.usable else "expired" if row.revoked_at is None else "revoked"
    assert row.scope in SCOPES and row.records in RECORDS
    return ApiKey(
        row.id, row.name, row.scope, row.rate, row.origins, row.records, row.created_at,
        row.expires_at, row.revoked_at, state,
    )  # fmt: skip
