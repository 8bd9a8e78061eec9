"""Migrates a database to this version: Alembic, then `sql/`, change stamps and identity keys.

One connection holds one advisory lock, so hosts that deploy at the same time take turns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine

from app.catalog import fallback_index
from app.db import locks, timeouts
from app.db.engine import check_schema, check_server, driver_connection, schema_revision
from app.db.locks import LockKey
from app.db.notices import warnings_logged
from app.db.queries import change_stamps, products, roles
from app.db.schema import SCHEMA_REVISION
from app.db.schema_location import schema_folder
from app.duplicates.normalization import VERSION, identity_key
from app.errors import LockHeld, LookalikeError, SchemaMismatch

LOCK_POLL_S = 0.2
"""Seconds between two attempts to take the migration lock."""

MAX_TRIES = 40
"""Attempts to get the table locks of a migration or of `sql/`."""

RETRY_PAUSE_S = 3.0
"""Seconds between two of these attempts."""

BATCH = 2000
"""Rows per transaction where all rows of a table may have to be rewritten."""

_log = logging.getLogger("lookalike.migrate")


def migrate(engine: Engine) -> str:
    """Upgrade to the newest migration and replay `sql/`; returns the revision reached.

    A newer database that still serves this version is left unchanged. Raises SchemaMismatch for one
    that does not, LockHeld when table locks could not be taken in MAX_TRIES attempts.
    """
    with engine.connect() as connection:
        check_server(connection)
        timeouts.set_for_session(connection, statement_s=0)
        _lock(connection)
        try:
            if not _is_newer(connection):
                _with_retries(connection, _upgrade)
                _with_retries(connection, _replay)
                _renew_stamps(connection)
                _renew_identity_keys(connection)
            revision = schema_revision(connection)
            connection.commit()
        finally:
            with suppress(LookalikeError):  # a connection that is gone has lost the lock as well
                connection.rollback()
                locks.release_session(connection, LockKey.MIGRATION)
                timeouts.reset(connection)
                connection.commit()
    fallback_index.maintain(engine, _log.warning)
    if revision is None:
        raise SchemaMismatch("The migrations left no revision behind; the database is damaged.")
    return revision


def _lock(connection: Connection) -> None:
    """Take the migration lock by polling.

    A session that waits inside a statement holds a snapshot, and CREATE INDEX CONCURRENTLY in the
    process that holds the lock would wait for that snapshot: a deadlock.
    """
    while not locks.try_acquire_session(connection, LockKey.MIGRATION):
        connection.commit()
        time.sleep(LOCK_POLL_S)
    connection.commit()


def _is_newer(connection: Connection) -> bool:
    """Whether a newer version has migrated already; the views and functions are then its own."""
    newer = (schema_revision(connection) or "") > SCHEMA_REVISION
    if newer:
        check_schema(connection)
    connection.commit()
    return newer


def _with_retries(connection: Connection, step: Callable[[Connection], None]) -> None:
    """Run a step, and repeat it while it cannot get its table locks.

    A step waits for a lock only briefly, because all later statements on that table queue behind
    it. Searches run between two attempts.
    """
    for left in reversed(range(MAX_TRIES)):
        try:
            step(connection)
            return
        except LockHeld as exc:
            connection.rollback()
            if not left:
                raise
            _log.warning("%s %d more tries, one every %g s.", exc, left, RETRY_PAUSE_S)
            time.sleep(RETRY_PAUSE_S)


def _upgrade(connection: Connection) -> None:
    command.upgrade(_config(connection), "head")


def _config(connection: Connection) -> Config:
    """Alembic's configuration, using a connection that is already open."""
    config = Config()
    folder = str(schema_folder() / "alembic")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _replay(connection: Connection) -> None:
    """Run all files of `sql/` in the order of their names, in one transaction."""
    timeouts.set_for_transaction(connection, lock_s=2)
    plain = connection.execution_options(no_parameters=True)
    with warnings_logged(driver_connection(connection), _log):
        for file in sorted((schema_folder() / "sql").glob("*.sql")):
            plain.exec_driver_sql(file.read_text(encoding="utf-8"))
    roles.protect_revision(connection)
    connection.commit()


def _renew_stamps(connection: Connection) -> None:
    """Stamp rows that carry transaction ids of another server's future."""
    for stamp in change_stamps.STAMPS:
        while change_stamps.restamp(connection, stamp, BATCH):
            connection.commit()
        connection.commit()


def _renew_identity_keys(connection: Connection) -> None:
    """Write identity keys that are missing or come from another version of the normaliser."""
    after = 0
    while True:
        # Otherwise a writer could change a product between reading and writing its key.
        locks.acquire(connection, LockKey.CATALOG_WRITE)
        rows = products.outdated_identity_keys(connection, VERSION, after, BATCH)
        keys = {id_: (key, identity_key(product)) for id_, key, product in rows}
        changed = {id_: new for id_, (old, new) in keys.items() if new != old}
        if changed:
            products.update_identity_keys(connection, changed)
        connection.commit()
        if not rows:
            return
        after = rows[-1][0]
