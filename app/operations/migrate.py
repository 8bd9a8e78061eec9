"""Brings a database to this version: alembic, then `sql/`, the stamps, the identity keys.

One connection, one advisory lock: two hosts that deploy at once migrate one after the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text

from app.catalog import bulk_load
from app.db import locks
from app.db.engine import check_schema, check_server, driver_connection, schema_revision
from app.db.locks import LockKey
from app.db.notices import warnings_logged
from app.db.queries import change_stamps, products, roles
from app.db.schema import SCHEMA_REVISION
from app.duplicates.normalization import VERSION, identity_key
from app.errors import LockHeld, LookalikeError, SchemaMismatch

WAIT_S = 0.2
"""Between two tries to get the lock."""

TRIES = 40
"""To get the locks of a migration or of `sql/`."""

PAUSE_S = 3.0
"""Between two of them."""

BATCH = 2000
"""Rows that are written in one transaction, where all rows of a table may have to be."""

_log = logging.getLogger("lookalike.migrate")

ROOT = Path(__file__).resolve().parents[2]


def migrate(engine: Engine) -> str:
    """Upgrade to the newest migration and replay `sql/`; returns the revision reached.

    A database that is newer and still serves this code is left as it is. Raises SchemaMismatch for
    one that does not, LockHeld when a lock cannot be had in many tries.
    """
    with engine.connect() as connection:
        check_server(connection)
        connection.execute(text("SET statement_timeout = 0"))
        _lock(connection)
        try:
            if not _newer(connection):
                _patiently(connection, _upgrade)
                _patiently(connection, _replay)
                _stamp_anew(connection)
                _renew_keys(connection)
            revision = schema_revision(connection)
            connection.commit()
        finally:
            with suppress(LookalikeError):  # a connection that is gone has lost the lock as well
                connection.rollback()
                locks.release_session(connection, LockKey.MIGRATION)
                connection.execute(text("RESET statement_timeout"))
                connection.commit()
    bulk_load.finish(engine, _log.warning)
    if revision is None:
        raise SchemaMismatch("The migrations left no revision behind; the database is damaged.")
    return revision


def _lock(connection: Connection) -> None:
    """Take the lock by trying again and again.

    Whoever waits for it inside a statement holds a snapshot, and an index that is created
    concurrently by the holder of the lock waits for every snapshot.
    """
    while not locks.try_acquire_session(connection, LockKey.MIGRATION):
        connection.commit()
        time.sleep(WAIT_S)
    connection.commit()


def _newer(connection: Connection) -> bool:
    """Whether code that came after this one has migrated already; views are its own too then."""
    newer = (schema_revision(connection) or "") > SCHEMA_REVISION
    if newer:
        check_schema(connection)
    connection.commit()
    return newer


def _patiently(connection: Connection, step: Callable[[Connection], None]) -> None:
    """Take a step, again and again where it cannot get a lock.

    A step waits for a lock only briefly, because whoever comes after it waits behind it. What is
    between two tries belongs to the searches.
    """
    for left in reversed(range(TRIES)):
        try:
            step(connection)
            return
        except LockHeld as exc:
            connection.rollback()
            if not left:
                raise
            _log.warning("%s %d more tries, one every %g s.", exc, left, PAUSE_S)
            time.sleep(PAUSE_S)


def _upgrade(connection: Connection) -> None:
    command.upgrade(_config(connection), "head")


def _config(connection: Connection) -> Config:
    """Alembic's configuration from pyproject.toml, on a connection that is already open."""
    pyproject = ROOT / "pyproject.toml"
    if not (ROOT / "alembic" / "env.py").exists() or not pyproject.exists():
        raise SchemaMismatch(
            f"No migrations in {ROOT}. Install Lookalike from its source folder "
            "(`pip install -e .`), which carries them."
        )
    config = Config(toml_file=str(pyproject))
    config.attributes["connection"] = connection
    return config


def _replay(connection: Connection) -> None:
    """Run every file of `sql/` in the order of their names, all in one transaction."""
    connection.execute(text("SET LOCAL lock_timeout = '2s'"))
    plain = connection.execution_options(no_parameters=True)
    with warnings_logged(driver_connection(connection), _log):
        for file in sorted((ROOT / "sql").glob("*.sql")):
            plain.exec_driver_sql(file.read_text(encoding="utf-8"))
    roles.protect_revision(connection)
    connection.commit()


def _stamp_anew(connection: Connection) -> None:
    for stamp in change_stamps.STAMPS:
        while change_stamps.restamp(connection, stamp, BATCH):
            connection.commit()
        connection.commit()


def _renew_keys(connection: Connection) -> None:
    """Write the identity keys that another version of the normaliser made, or none."""
    after = 0
    while True:
        # Else a writer could change a product between the reading and the writing of its key.
        locks.acquire(connection, LockKey.CATALOG_WRITE)
        found = products.outdated_identity_keys(connection, VERSION, after, BATCH)
        keys = {id_: (key, identity_key(product)) for id_, key, product in found}
        changed = {id_: new for id_, (old, new) in keys.items() if new != old}
        if changed:
            products.update_identity_keys(connection, changed)
        connection.commit()
        if not found:
            return
        after = found[-1][0]
