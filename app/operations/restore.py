"""Restores a backup into a new database, all of it or nothing, and migrates it to this version."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection, Engine

from app.db import client_tools
from app.db.client_tools import ClientFailed
from app.db.engine import check_server
from app.db.queries import change_stamps, database_info, index_builds
from app.db.schema import SCHEMA_REVISION
from app.errors import BadInput, DatabaseUnsuitable, LookalikeError, SchemaMismatch
from app.operations import backup_manifest
from app.operations.backup import DUMP
from app.operations.backup_manifest import BadBackup, Manifest
from app.operations.migrate import migrate
from app.types import ProgressCallback

OPTIONS = (
    "--single-transaction",
    "--exit-on-error",
    # Roles, tablespaces and subscriptions belong to the server, and this may be another one.
    "--no-owner",
    "--no-privileges",
    "--no-tablespaces",
    "--no-publications",
    "--no-subscriptions",
    "--no-security-labels",
)


PGVECTOR_INDEX = re.compile(r" embedding_m\d+_(vec|ivf1|ivf2)_idx\b")
"""In the dump's contents, pgvector's indexes and their comments. They are built by the migration:
here the server's settings may not give them enough memory, and they have to be measured."""


class RestoreFailed(LookalikeError):
    """Nothing was restored."""


def restore(
    engine: Engine, source: Path, notify: ProgressCallback = lambda message: None
) -> Manifest:
    """Restore the backup in the folder `source` into the engine's database, which must be empty.

    Afterwards the database is at this version's migration and its tables are analysed; an index
    must still be built. Raises BadBackup, SchemaMismatch, DatabaseUnsuitable, BadInput for a
    database that is in use, and RestoreFailed; the database is then unchanged.
    """
    manifest = backup_manifest.read(source)
    _check_fits(manifest)
    notify(f"checking {manifest.size / 1e6:,.1f} MB")
    backup_manifest.check_files(manifest, source)
    _prepare(engine, manifest)
    _load(engine, source / DUMP, notify)
    _check_rows(engine, manifest)
    notify("migrating")
    migrate(engine)
    with engine.begin() as connection:
        index_builds.retire_foreign(connection)
        database_info.analyse(connection)
    return manifest


def _check_fits(manifest: Manifest) -> None:
    if DUMP not in manifest.files:
        raise BadBackup(f"The manifest names no {DUMP}; this is not the backup of a catalogue.")
    if manifest.revision > SCHEMA_REVISION:
        raise SchemaMismatch(
            f"The backup is at migration {manifest.revision}, made by Lookalike "
            f"{manifest.lookalike}; this version knows {SCHEMA_REVISION}. Update Lookalike."
        )


def _prepare(engine: Engine, manifest: Manifest) -> None:
    """Reject a server that is too old and a database that is in use; create the extension."""
    with engine.begin() as connection:
        check_server(connection)
        versions = database_info.versions(connection)
        if versions.major < manifest.postgresql_major:
            raise DatabaseUnsuitable(
                f"The backup was made of PostgreSQL {manifest.postgresql}, and this server is "
                f"{versions.postgresql}, which is older. Restore it into PostgreSQL "
                f"{manifest.postgresql_major} or newer."
            )
        _check_new(connection)
        database_info.create_extension(connection)
        _check_vectors(connection, manifest.pgvector_schema)


def _check_new(connection: Connection) -> None:
    if objects := database_info.relations(connection):
        examples = ", ".join(objects[:3]) + ", …" * (len(objects) > 3)
        raise BadInput(
            f"This database is in use: it has {examples}. Nothing was overwritten. Restore into a "
            "new one: name another folder with LOOKALIKE_HOME, or make a database and name it with "
            "LOOKALIKE_DATABASE_URL."
        )


def _check_vectors(connection: Connection, schema: str) -> None:
    """The dump names pgvector's types with their schema, and services name them without."""
    current = database_info.versions(connection).pgvector_schema
    if current != schema or not database_info.finds_vector_type(connection):
        raise DatabaseUnsuitable(
            f"The backup has pgvector in the schema {schema}, and this database has it in "
            f"{current}, or not in its search_path. Make a database with `CREATE EXTENSION vector "
            f"SCHEMA {schema}`, and name that schema in its search_path, after public."
        )


def _load(engine: Engine, dump: Path, notify: ProgressCallback) -> None:
    with engine.connect() as connection:
        schemas = database_info.schemas(connection)
    try:
        contents = client_tools.output("pg_restore", "--list", str(dump)).splitlines()
        entries = [
            line
            for line in contents
            if not _creates_schema(line, schemas) and not PGVECTOR_INDEX.search(line)
        ]
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".list") as order:
            order.write("\n".join(_triggers_before_rows(entries)) + "\n")
            order.flush()
            source = (f"--use-list={order.name}", str(dump))
            client_tools.run(engine, "pg_restore", *OPTIONS, *source, notify=notify)
    except ClientFailed as exc:
        raise RestoreFailed(f"Nothing was restored: {exc}") from exc


def _creates_schema(line: str, schemas: Iterable[str]) -> bool:
    """Whether a line of the dump's contents creates a schema that exists, such as pgvector's."""
    return any(f" SCHEMA - {name} " in line for name in schemas)


def _triggers_before_rows(entries: Iterable[str]) -> list[str]:
    """The dump's contents with the stamp triggers moved before the rows.

    Otherwise rows would keep transaction ids of the old server, and renewing them afterwards would
    write each row a second time.
    """
    lines = [line for line in entries if not line.startswith(";")]
    triggers = [
        line
        for line in lines
        if any(
            f" TRIGGER public {each.table} {each.trigger} " in line for each in change_stamps.STAMPS
        )
    ]
    rest = [line for line in lines if line not in triggers]
    data = next((n for n, line in enumerate(rest) if " TABLE DATA " in line), len(rest))
    return [*rest[:data], *triggers, *rest[data:]]


def _check_rows(engine: Engine, manifest: Manifest) -> None:
    with engine.begin() as connection:
        counts = database_info.count_rows(connection, database_info.tables(connection))
    if other := [name for name, count in manifest.rows.items() if counts.get(name) != count]:
        name, expected = other[0], manifest.rows[other[0]]
        raise RestoreFailed(
            f"{name} has {counts.get(name, 0):,} rows after the restore, {expected:,} were backed "
            "up. "
            "Drop this database and restore another copy of the backup."
        )
