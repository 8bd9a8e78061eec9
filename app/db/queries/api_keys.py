"""SQL of `api_key` and `api_secret`: the keys of the HTTP API and the secrets it signs with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

FIELDS = "id, name, scope, digest, rate, origins, records, created_at, expires_at, revoked_at"

USABLE = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"

KEYS = f"SELECT {FIELDS}, {USABLE} AS usable FROM api_key"

Execute = Callable[[str, Mapping[str, Any]], Any]
"""Runs a statement of psycopg's format: of a driver's connection, or `exec_driver_sql`."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A row of `api_key`; `usable` is whether it is neither revoked nor expired now."""

    id: str
    name: str
    scope: str
    digest: bytes
    rate: float | None
    origins: tuple[str, ...]
    records: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    usable: bool


def insert(
    connection: Connection, id_: str, name: str, scope: str, digest: bytes, rate: float | None,
    origins: Sequence[str], records: str, expires_at: datetime | None,
) -> None:  # fmt: skip
    """Store a key by the digest (32 bytes) of its secret."""
    connection.execute(
        text(
            """INSERT INTO api_key (id, name, scope, digest, rate, origins, records, expires_at)
            VALUES (:id, :name, :scope, :digest, :rate, CAST(:origins AS text[]), :records,
                :expires_at)"""
        ),
        {
            "id": id_, "name": name, "scope": scope, "digest": digest, "rate": rate,
            "origins": list(origins), "records": records, "expires_at": expires_at,
        },
    )  # fmt: skip


def find(execute: Execute, id_: str) -> KeyRow | None:
    """The key with this id, whether it is usable or not."""
    row = execute(f"{KEYS} WHERE id = %(id)s", {"id": id_}).fetchone()
    return None if row is None else _key(row)


def listed(connection: Connection) -> list[KeyRow]:
    """All keys, the newest first."""
    return [_key(row) for row in connection.execute(text(f"{KEYS} ORDER BY created_at DESC, id"))]


def _key(row: Sequence[Any]) -> KeyRow:
    id_, name, scope, digest, rate, origins, *others = row
    return KeyRow(id_, name, scope, bytes(digest), rate, tuple(origins), *others)


def revoke(connection: Connection, id_: str) -> bool:
    """Revoke a key from now on; False if there is no key with this id."""
    result = connection.execute(
        text("UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = :id"),
        {"id": id_},
    )
    return result.rowcount > 0


def any_created(execute: Execute) -> bool:
    """Whether a key was ever created, usable or not."""
    row = execute("SELECT EXISTS (SELECT FROM api_key)", {}).fetchone()
    return row is not None and bool(row[0])


def is_origin(connection: Connection, origin: str) -> bool:
    """Whether a usable key may be used by pages of this origin."""
    sql = f"SELECT EXISTS (SELECT FROM api_key WHERE :origin = ANY(origins) AND {USABLE})"
    return bool(connection.execute(text(sql), {"origin": origin}).scalar_one())


def secret(connection: Connection, name: str) -> bytes | None:
    """The secret of this use; None if none is stored."""
    row = connection.execute(
        text("SELECT secret FROM api_secret WHERE name = :name"), {"name": name}
    ).one_or_none()
    return None if row is None else bytes(row.secret)


def store_secret(connection: Connection, name: str, value: bytes) -> None:
    """Store a secret, unless another process has stored one."""
    connection.execute(
        text("INSERT INTO api_secret VALUES (:name, :value) ON CONFLICT (name) DO NOTHING"),
        {"name": name, "value": value},
    )
