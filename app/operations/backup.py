"""Backs up the whole database in one snapshot, into a folder that is complete or not created.

Index files are not included: they are rebuilt from the embeddings.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Connection, Engine

from app import atomic_files
from app.db import client_tools, timeouts
from app.db.client_tools import ClientFailed
from app.db.embedded import binaries
from app.db.engine import schema_revision, snapshot
from app.db.queries import database_info, models
from app.db.schema import SCHEMA_REVISION
from app.errors import (
    BadInput,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    LookalikeError,
    SchemaMismatch,
)
from app.operations import backup_manifest
from app.operations.backup_manifest import Manifest
from app.types import ProgressCallback

DUMP = "catalogue.dump"

DERIVED = ("public.index_chunk",)
"""Tables whose rows are left out: copies of index files, which another database cannot use."""

PHOTOS = ("public.query_photo", "public.kept_photo")
"""Photos that people searched with, which are deleted after a while, and a backup is not."""

OPTIONS = (
    "--format=custom",
    "--compress=gzip:1",  # vectors are dumped as text, which compresses well; 2 to 9 gain little
    "--encoding=UTF8",
    "--lock-wait-timeout=60s",
    # A restore expects the extension: only a superuser may create it or set its comment.
    "--exclude-extension=vector",
)


class BackupFailed(LookalikeError):
    """No backup was made."""


def backup(
    engine: Engine,
    target: Path,
    notify: ProgressCallback = lambda message: None,
    *,
    photos: bool = False,
) -> Manifest:
    """Back up the database into the folder `target`, which must be new or empty.

    Photos that people searched with are left out unless `photos` is set. Searches and writers are
    not blocked. Raises BadInput for a folder that is in use, SchemaMismatch, DatabaseUnsuitable for
    a server newer than our pg_dump, and BackupFailed; the target is then unchanged.
    """
    _check_target(target)
    with _draft(target) as draft, snapshot(engine) as connection:
        timeouts.no_idle_timeout(connection)  # it is idle while pg_dump reads
        exported = database_info.export_snapshot(connection)
        manifest = _describe(connection, DERIVED if photos else (*DERIVED, *PHOTOS))
        notify(f"{sum(manifest.rows.values()):,} rows in {len(manifest.rows)} tables")
        _dump(engine, draft, exported, manifest.left_out, notify)
        notify("hashing the files")
        return _seal(manifest, draft)


def _check_target(target: Path) -> None:
    try:
        if not target.is_dir() and not target.exists():
            return
        if target.is_dir() and not any(target.iterdir()):
            return
    except OSError as exc:
        raise BadInput(f"{target} cannot be read: {exc.strerror or exc}.") from exc
    raise BadInput(f"{target} already exists and is not an empty folder. Name a new folder.")


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A folder next to the target, renamed to it at the end, or deleted after an error.

    Only its owner may read it, because it holds the whole catalogue.
    """
    try:
        with atomic_files.replace_folder(target.absolute(), mode=0o700) as draft:
            yield draft
    except OSError as exc:
        raise BackupFailed(
            f"No backup was made in {target}: {exc.strerror or exc}. {_advice(target, exc)}"
        ) from exc
    except DatabaseUnavailable as exc:
        raise BackupFailed(f"No backup was made: {exc}") from exc


def _advice(target: Path, exc: OSError) -> str:
    if exc.errno in (errno.EACCES, errno.EPERM):
        parent = target.absolute().parent
        return f"Let the user {os.getuid()} write to {parent}, or name another folder."
    if exc.errno == errno.EROFS:
        return "Name a folder that is on a file system that can be written to."
    return "Make room, or name another folder."


def _describe(connection: Connection, left_out: tuple[str, ...]) -> Manifest:
    """The manifest of what this snapshot sees, without the files and the rows of the tables in
    `left_out`. Raises SchemaMismatch."""
    versions, revision = database_info.versions(connection), _revision(connection)
    if versions.major > binaries.MAJOR:
        raise DatabaseUnsuitable(
            f"The server is PostgreSQL {versions.postgresql} and Lookalike's pg_dump is of "
            f"{binaries.MAJOR}, which cannot read it. Use the pg_dump of the server."
        )
    names = [name for name in database_info.tables(connection) if name not in left_out]
    return Manifest(
        made_at=datetime.now(UTC),
        lookalike=version("lookalike"),
        revision=revision,
        postgresql=versions.postgresql,
        postgresql_major=versions.major,
        pgvector=versions.pgvector or "",
        model=models.active_at_any_revision(connection),
        rows=_count_rows(connection, names),
        left_out=left_out,
        files={},
        pgvector_schema=versions.pgvector_schema or "public",
    )


def _count_rows(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    try:
        return database_info.count_rows(connection, names)
    except SchemaMismatch as exc:
        raise BackupFailed(
            "No backup was made: a table was dropped while it began, as happens when a model is "
            "deleted. Run it again."
        ) from exc


def _revision(connection: Connection) -> str:
    """The database's revision; an older one is accepted, because backups precede migrations."""
    revision = schema_revision(connection)
    if revision is None:
        raise SchemaMismatch("This database is empty; there is nothing to back up.")
    if revision > SCHEMA_REVISION:
        raise SchemaMismatch(
            f"The database is at migration {revision}, newer than the {SCHEMA_REVISION} this "
            "version knows, and could not be restored by it. Update Lookalike."
        )
    return revision


def _dump(
    engine: Engine, draft: Path, exported: str, tables: Sequence[str], notify: ProgressCallback
) -> None:
    left_out = [f"--exclude-table-data={name}" for name in tables]
    target = ("--snapshot", exported, "--file", str(draft / DUMP))
    try:
        client_tools.run(engine, "pg_dump", *OPTIONS, *left_out, *target, notify=notify)
    except ClientFailed as exc:
        advice = ". Run it as the role that owns the tables." if "privilege" in str(exc) else ""
        raise BackupFailed(f"No backup was made: {exc}{advice}") from exc


def _seal(manifest: Manifest, draft: Path) -> Manifest:
    """Write the manifest with the hashes of the files, and sync the folder."""
    sealed = replace(manifest, files={DUMP: backup_manifest.describe(draft / DUMP)})
    backup_manifest.write(sealed, draft)
    for name in (DUMP, backup_manifest.NAME):  # private also where they are copied to
        (draft / name).chmod(0o600)
    atomic_files.sync_folder(draft)
    return sealed
