"""The connection URL of the database: parsed as libpq and psql do, and shown without secrets."""

from __future__ import annotations

import re
from urllib.parse import quote

import psycopg
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

from app.errors import DatabaseUnavailable

SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
"""Options of a connection URL that are secret."""

_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
_USER = re.compile(r"[^@/]*@")
_PORTS = re.compile(r"[\d,]*")


def parse(address: str) -> dict[str, str]:
    """The options that libpq reads from a connection URL, by keyword, without defaults.

    Raises DatabaseUnavailable for an invalid URL. The message does not repeat any part of it: when
    it was split in the wrong place, any part may be the password.
    """
    rest = _after_scheme(address)
    user = _USER.match(rest)
    if "@" in rest[user.end() if user else 0 :].partition("?")[0]:
        raise _invalid("it has more than one @, or a / before it; in a password write %40, %2F")
    try:
        options = conninfo_to_dict(f"postgresql://{rest}")
    except (psycopg.Error, ValueError):
        raise _invalid("it cannot be read") from None  # the cause repeats parts of it
    if "\0" in rest or not _PORTS.fullmatch(str(options.get("port", ""))):
        raise _invalid("it cannot be read")
    return {name: str(value) for name, value in options.items()}


def without_password(address: str) -> str:
    """The URL as psql accepts it, without its secrets."""
    rest = _after_scheme(address)
    if user := _USER.match(rest):
        rest = f"{user[0][:-1].partition(':')[0]}@{rest[user.end() :]}"
    where, mark, query = rest.partition("?")
    options = [each for each in query.split("&") if each.partition("=")[0] not in SECRETS]
    return f"postgresql://{where}" + (mark + "&".join(options) if any(options) else "")


def for_psql(address: str) -> str:
    """The URL as psql accepts it, with the password, whichever driver the URL names."""
    return f"postgresql://{_after_scheme(address)}"


def with_password(address: str, password: str) -> str:
    """The URL with this password, unless it has one of its own."""
    if "password" in parse(address):
        return address
    mark = "&" if "?" in address else "?"
    return f"{address}{mark}password={quote(password, safe='')}"


def public_url(options: dict[str, str]) -> sqlalchemy.URL:
    """A URL to show: user, host, port and database, no secrets."""
    host, port = options.get("host", ""), options.get("port", "")
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", username=options.get("user"), database=options.get("dbname")
    )
    if "/" not in host and "," not in host + port:
        return url.set(host=host or None, port=int(port) if port else None)
    ports = port if "," in port or not port else ",".join([port] * len(host.split(",")))
    return url.set(query={"host": host} | ({"port": ports} if ports else {}))


def _after_scheme(address: str) -> str:
    scheme = _SCHEME.match(address)
    if scheme is None:
        raise _invalid("it does not begin with postgresql://")
    return address[scheme.end() :].replace(" ", "%20")  # libpq rejects spaces


def _invalid(reason: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"LOOKALIKE_DATABASE_URL is not the address of a PostgreSQL database: {reason}. It looks "
        "like postgresql://user:password@host:5432/database, with %40 for @ and %2F for / in the "
        "password."
    )
