"""Damaged, foreign and later backups are refused; a restore that fails leaves nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app.bootstrap import App
from app.errors import BadInput, DatabaseUnsuitable, SchemaMismatch
from app.operations import backup_manifest
from app.operations.backup import DUMP, backup
from app.operations.backup_manifest import BadBackup
from app.operations.integrity import CheckOptions, check
from app.operations.migrate import migrate
from app.operations.restore import RestoreFailed, restore
from app.types import Query
from support.backups import ask, refused
from support.colours import photo
from support.shop import add, numbered

pytestmark = pytest.mark.xdist_group("backup")  # the backup is made once


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    """A copy of the backup that a test may damage."""
    return Path(shutil.copytree(stored, tmp_path / "copy"))


def change(folder: Path, **fields: object) -> None:
    """Change values of a manifest."""
    file = folder / backup_manifest.NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_nothing_is_restored_over_a_database_in_use(app: App, stored: Path) -> None:
    add(app, {"MINE": [1]})
    with pytest.raises(BadInput, match=r"in use.*Nothing was overwritten"):
        restore(app.engine, stored)
    assert ask(app, "SELECT sku FROM product") == [("MINE",)]


def test_a_folder_without_a_backup_is_refused(elsewhere: App, tmp_path: Path) -> None:
    refused(elsewhere, tmp_path, BadBackup, "is no backup")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": "one"}', "\u00e9\x00", '{"format": true}']
)
def test_an_invalid_manifest_is_refused(elsewhere: App, copy: Path, text: str) -> None:
    (copy / backup_manifest.NAME).write_text(text)
    refused(elsewhere, copy, BadBackup, "not the manifest")


def test_a_manifest_of_another_encoding_is_refused(elsewhere: App, copy: Path) -> None:
    (copy / backup_manifest.NAME).write_bytes(b"\xff\xfe\x00")
    refused(elsewhere, copy, BadBackup, "not the manifest")


def test_a_backup_of_a_later_format_is_refused(elsewhere: App, copy: Path) -> None:
    change(copy, format=2, lookalike="7.0")
    refused(elsewhere, copy, BadBackup, r"format 2.*7\.0")


def test_a_backup_of_a_later_migration_is_refused(elsewhere: App, copy: Path) -> None:
    change(copy, revision="9999")
    refused(elsewhere, copy, SchemaMismatch, "Update Lookalike")


def test_a_backup_of_a_later_postgresql_is_refused(elsewhere: App, copy: Path) -> None:
    change(copy, postgresql="19.1", postgresql_major=19)
    refused(elsewhere, copy, DatabaseUnsuitable, "PostgreSQL 19 or newer")


def test_a_backup_that_names_files_elsewhere_is_refused(elsewhere: App, copy: Path) -> None:
    change(copy, files={"../secret": {"sha256": "0", "size": 1}})
    refused(elsewhere, copy, BadBackup, "not the manifest")


def test_a_backup_without_its_dump_is_refused(elsewhere: App, copy: Path) -> None:
    (copy / DUMP).unlink()
    refused(elsewhere, copy, BadBackup, "cannot be read")


@pytest.mark.parametrize("how", ["cut", "changed"])
def test_a_damaged_dump_is_refused(elsewhere: App, copy: Path, how: str) -> None:
    data = bytearray((copy / DUMP).read_bytes())
    if how == "cut":
        del data[-1:]
    else:
        data[len(data) // 2] ^= 1
    (copy / DUMP).write_bytes(data)
    refused(elsewhere, copy, BadBackup, "is not what was written")


def test_a_restore_that_fails_half_way_leaves_nothing(elsewhere: App, copy: Path) -> None:
    """Like a dump that was damaged before it was hashed."""
    (copy / DUMP).write_bytes((copy / DUMP).read_bytes()[:-4000])
    dump = backup_manifest.describe(copy / DUMP)
    change(copy, files={DUMP: {"sha256": dump.sha256, "size": dump.size}})
    refused(elsewhere, copy, RestoreFailed, "Nothing was restored")


def test_missing_rows_after_a_restore_are_an_error(elsewhere: App, copy: Path) -> None:
    change(copy, rows={"public.product": 13})
    with pytest.raises(RestoreFailed, match="12 rows after the restore, 13 were backed up"):
        restore(elsewhere.engine, copy)


def test_a_restore_interrupted_during_its_migration_is_completed_by_migrate_and_check(
    app: App, elsewhere: App, tmp_path: Path
) -> None:
    """A backup from before the last migrations; all of its rows are restored."""
    from alembic import command

    from app.operations.migrate import _config

    add(app, numbered(5))
    app.indexer.rebuild()
    with app.engine.connect() as connection:
        command.downgrade(_config(connection), "0005")
        connection.commit()
    backup(app.engine, tmp_path / "b")

    def interrupt(message: str) -> None:
        if message == "migrating":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(elsewhere.engine, tmp_path / "b", notify=interrupt)
    migrate(elsewhere.engine)
    assert check(
        elsewhere.engine, elsewhere.files, elsewhere.limits, CheckOptions(repair=True)
    ).healthy
    result = elsewhere.search.search(Query(picture=photo(1), k=5))
    assert result.matches[0].product.sku == "P0001" and len(result.matches) == 5
