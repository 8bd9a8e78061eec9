"""Restore: a backup into a new database, all of it or nothing, brought to this version."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection, Engine

from app.db import client_tools
from app.db.client_tools import ClientFailed, ProgressCallback
from app.db.engine import check_server
from app.db.queries import change_stamps, database_info, index_builds
from app.db.schema import SCHEMA_REVISION
from app.errors import BadInput, DatabaseUnsuitable, LookalikeError, SchemaMismatch
from app.operations import backup_manifest
from app.operations.backup import DUMP
from app.operations.backup_manifest import BadBackup, Manifest
from app.operations.migrate import migrate

OPTIONS = (
    "--single-transaction",
    "--exit-on-error",
    # Roles, tablespaces and who follows whom are the server's, and another one has others.
    "--no-owner",
    "--no-privileges",
    "--no-tablespaces",
    "--no-publications",
    "--no-subscriptions",
    "--no-security-labels",
)


class RestoreFailed(LookalikeError):
    """Nothing was restored."""


def restore(engine: Engine, source: Path, tell: ProgressCallback = lambda said: None) -> Manifest:
    """Restore the backup in the folder `source` into the engine's database, which must be new.

    Afterwards the database is at this version's migration and the planner knows its tables; an
    index is still to be built. Raises BadBackup, SchemaMismatch, DatabaseUnsuitable, BadInput for a
    database that is in use, and RestoreFailed; then nothing of it is there.
    """
    manifest = backup_manifest.read(source)
    _check_fits(manifest)
    tell(f"checking {manifest.size / 1e6:,.1f} MB")
    backup_manifest.check_files(manifest, source)
    _prepare(engine, manifest)
    _load(engine, source / DUMP, tell)
    _check_rows(engine, manifest)
    tell("migrating")
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
    """Refuse a server that is too old and a database that is in use; make pgvector's types."""
    with engine.begin() as connection:
        check_server(connection)
        found = database_info.versions(connection)
        if found.major < manifest.postgresql_major:
            raise DatabaseUnsuitable(
                f"The backup was made of PostgreSQL {manifest.postgresql}, and this server is "
                f"{found.postgresql}, which is older. Restore it into PostgreSQL "
                f"{manifest.postgresql_major} or newer."
            )
        _check_new(connection)
        database_info.create_extension(connection)
        _check_vectors(connection, manifest.pgvector_schema)


def _check_new(connection: Connection) -> None:
    if there := database_info.relations(connection):
        raise BadInput(
            f"This database is in use: it has {', '.join(there[:3])}{', …' * (len(there) > 3)}. "
            "Nothing was overwritten. Restore into a new one: name another folder with "
            "LOOKALIKE_HOME, or make a database and name it with LOOKALIKE_DATABASE_URL."
        )


def _check_vectors(connection: Connection, schema: str) -> None:
    """The dump names pgvector's types with their schema, and services name them without."""
    found = database_info.versions(connection).pgvector_schema
    if found != schema or not database_info.finds_vector_type(connection):
        raise DatabaseUnsuitable(
            f"The backup has pgvector in the schema {schema}, and this database has it in {found}, "
            f"or not in its search_path. Make a database with `CREATE EXTENSION vector SCHEMA "
            f"{schema}`, and name that schema in its search_path, after public."
        )


def _load(engine: Engine, dump: Path, tell: ProgressCallback) -> None:
    with engine.connect() as connection:
        there = database_info.schemas(connection)
    try:
        listed = client_tools.output("pg_restore", "--list", str(dump)).splitlines()
        wanted = [line for line in listed if not _makes_schema(line, there)]
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".list") as order:
            order.write("\n".join(_stamped_first(wanted)) + "\n")
            order.flush()
            use = (f"--use-list={order.name}", str(dump))
            client_tools.run(engine, "pg_restore", *OPTIONS, *use, tell=tell)
    except ClientFailed as exc:
        raise RestoreFailed(f"Nothing was restored: {exc}") from exc


def _makes_schema(line: str, there: Iterable[str]) -> bool:
    """Whether a line of a dump's contents makes a schema that is there, as that of pgvector is."""
    return any(f" SCHEMA - {name} " in line for name in there)


def _stamped_first(listed: Iterable[str]) -> list[str]:
    """The contents of a dump, in which the stamp triggers come before the rows.

    Else rows would keep the numbers of the old server, and rewriting them afterwards means to put
    each into the HNSW index a second time.
    """
    lines = [line for line in listed if not line.startswith(";")]
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
        found = database_info.count_rows(connection, database_info.tables(connection))
    if other := [name for name, count in manifest.rows.items() if found.get(name) != count]:
        name, wanted = other[0], manifest.rows[other[0]]
        raise RestoreFailed(
            f"{name} has {found.get(name, 0):,} rows after the restore, {wanted:,} were backed up. "
            "Drop this database and restore another copy of the backup."
        )
