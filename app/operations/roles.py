"""The two database roles on a shared server: one migrates, one serves without DDL rights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from sqlalchemy import Engine

from app.db.driver_errors import driver_errors
from app.db.engine import driver_connection
from app.db.notices import warnings_logged
from app.db.queries import roles
from app.errors import BadInput

_log = logging.getLogger("lookalike.roles")

MAX_NAME_BYTES = 63
"""Longest name of a role in bytes; PostgreSQL truncates longer ones."""

HEAD = """\
-- Lookalike's roles in this database: one migrates and owns the tables, one serves and cannot
-- change what tables are. A superuser runs this with psql in the catalogue's database, before the
-- first `lookalike migrate` or at any time after it, and again if need be. So may the owner of the
-- database who may make roles, where the extension vector is there already.
-- Passwords are not in it: \\password sets them in psql.
"""


def roles_script(migrator: str, server: str) -> str:
    """The statements that create both roles, for a DBA to read and run. Raises BadInput for names
    that PostgreSQL would truncate or reject."""
    return HEAD + "".join(f"\n{step.strip()};\n" for step in _steps(migrator, server))


def create_roles(engine: Engine, migrator: str, server: str, passwords: Mapping[str, str]) -> None:
    """Run `roles_script` as the engine's user, and set the passwords (by role name).

    Passwords are hashed here, so that the server logs none of them. Raises BadInput,
    DatabaseUnavailable and DatabaseUnsuitable.
    """
    steps = _steps(migrator, server)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as opened:
        connection = driver_connection(opened)
        with driver_errors(), _name_errors(), warnings_logged(connection, _log):
            for step in steps:
                connection.execute(step.encode())
            for name, password in passwords.items():
                _set_password(connection, name, password)


@contextmanager
def _name_errors() -> Iterator[None]:
    """Translate the error for a reserved role name."""
    try:
        yield
    except psycopg.errors.ReservedName as exc:
        detail = str(exc).strip()
        raise BadInput(f"PostgreSQL does not take this name for a role: {detail}.") from exc


def _steps(migrator: str, server: str) -> list[str]:
    for name in (migrator, server):
        if not name or "\0" in name or len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
            raise BadInput(
                f"A role has a name of 1 to {MAX_NAME_BYTES} bytes; {name[:80]!r} is none."
            )
    if migrator == server:
        raise BadInput("The role that migrates and the one that serves need two names.")
    return [roles.set_role_names(migrator, server), *roles.STEPS]


def _set_password(connection: psycopg.Connection, role: str, password: str) -> None:
    hashed = connection.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    ).decode()
    roles.set_password(connection, role, hashed)
