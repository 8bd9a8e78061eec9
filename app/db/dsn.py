"""The address of the database: libpq's own reading of it, so that every option means what it means
to psql, and what may be shown of it.
"""

from __future__ import annotations

import re

import psycopg
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

from app.errors import DatabaseUnavailable

SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
"""Options of an address that nobody but the server may see."""

_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
_USER = re.compile(r"[^@/]*@")
_PORTS = re.compile(r"[\d,]*")


def parameters(address: str) -> dict[str, str]:
    """What libpq reads in an address, by keyword: nothing is added, changed or left out.

    Raises DatabaseUnavailable for what is no address. No part of it is repeated there: where it
    was cut wrongly, any part may be the password.
    """
    rest = _after_scheme(address)
    user = _USER.match(rest)
    if "@" in rest[user.end() if user else 0 :].partition("?")[0]:
        raise _no_address("it has more than one @, or a / before it; in a password write %40, %2F")
    try:
        found = conninfo_to_dict(f"postgresql://{rest}")
    except (psycopg.Error, ValueError):
        raise _no_address("it cannot be read") from None  # the cause repeats parts of it
    if "\0" in rest or not _PORTS.fullmatch(str(found.get("port", ""))):
        raise _no_address("it cannot be read")
    return {name: str(value) for name, value in found.items()}


def without_password(address: str) -> str:
    """The address as psql takes it, with everything but its secrets."""
    rest = _after_scheme(address)
    if user := _USER.match(rest):
        rest = f"{user[0][:-1].partition(':')[0]}@{rest[user.end() :]}"
    where, mark, query = rest.partition("?")
    options = [each for each in query.split("&") if each.partition("=")[0] not in SECRETS]
    return f"postgresql://{where}" + (mark + "&".join(options) if any(options) else "")


def for_psql(address: str) -> str:
    """The address as psql takes it, password included, whatever driver it names."""
    return f"postgresql://{_after_scheme(address)}"


def shown(found: dict[str, str]) -> sqlalchemy.URL:
    """Who connects where, for people: user, host, port and database, nothing that is secret."""
    host, port = found.get("host", ""), found.get("port", "")
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", username=found.get("user"), database=found.get("dbname")
    )
    if "/" not in host and "," not in host + port:
        return url.set(host=host or None, port=int(port) if port else None)
    ports = port if "," in port or not port else ",".join([port] * len(host.split(",")))
    return url.set(query={"host": host} | ({"port": ports} if ports else {}))


def _after_scheme(address: str) -> str:
    scheme = _SCHEME.match(address)
    if scheme is None:
        raise _no_address("it does not begin with postgresql://")
    return address[scheme.end() :].replace(" ", "%20")  # libpq takes none as it is


def _no_address(reason: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"LOOKALIKE_DATABASE_URL is not the address of a PostgreSQL database: {reason}. It looks "
        "like postgresql://user:password@host:5432/database, with %40 for @ and %2F for / in the "
        "password."
    )
