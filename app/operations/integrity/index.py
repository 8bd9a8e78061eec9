"""Checks builds and both copies of their files, in the index folder and in the database.

The caller holds the builder's lock, so that nothing is built or retired during the check.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from app.db.queries import index_builds, integrity
from app.index import file_store
from app.index.file_store import IndexFiles
from app.operations.integrity.findings import (
    ExampleTally,
    Finding,
    IntegrityQuery,
    Severity,
    find_and_repair,
    run_queries,
)
from app.types import Build, ProgressCallback

RUN_REPAIR = "Run `lookalike check --repair`."

DAMAGE: dict[str, tuple[Severity, str, str]] = {
    "index-chunks-damaged": (
        "error", "builds whose copy in the database is damaged",
        f"A machine without the file has no index. {RUN_REPAIR}",
    ),
    "index-files-damaged": (
        "warning", "builds whose file is damaged",
        "The next search fetches it from the database.",
    ),
    "index-files-missing": (
        "info", "builds whose file is not in this folder",
        "The next search here fetches it from the database.",
    ),
    "builds-lost": (
        "error", "builds whose file is lost",
        "pgvector answers. Run `lookalike index rebuild`.",
    ),
}  # fmt: skip
"""Damage of a published build by kind: severity, description and advice."""


def find(
    engine: Engine, files: IndexFiles, repair: bool, notify: ProgressCallback
) -> Iterator[Finding]:
    """Damaged builds and files, and leftovers of older builds."""
    yield from run_queries(engine, BEFORE, repair)
    with engine.connect() as connection:
        published = index_builds.published(connection)
    for file in (file for build in published for file in build.files):
        notify(f"the file of {_name(file)}")
        find_damage = partial(_find_damage, engine, files, file)
        fix = partial(_repair, engine, files, file) if repair else None
        if (finding := find_and_repair(find_damage, fix)) is not None:
            yield finding
    yield from run_queries(engine, AFTER, repair)
    fix = partial(_delete_unneeded, engine, files) if repair else None
    if (finding := find_and_repair(partial(_find_unneeded, engine, files), fix)) is not None:
        yield finding


def _damage(engine: Engine, files: IndexFiles, build: Build) -> str | None:
    """The kind of damage of a file of a published build, a key of DAMAGE. Reads both copies."""
    with engine.connect() as connection:
        if build.id not in [other.id for other in index_builds.published(connection)]:
            return None  # it was retired
        pieces = index_builds.read_file(connection, build.id, build.part)
        stored = file_store.pieces_match(pieces, build.sha256)
    file = file_store.is_intact(files.path(build.sha256), build.sha256)
    if file:
        return "index-chunks-damaged" if stored is False else None
    if not stored:
        return "builds-lost"
    return "index-files-missing" if file is None else "index-files-damaged"


def _find_damage(engine: Engine, files: IndexFiles, build: Build) -> Finding | None:
    kind = _damage(engine, files, build)
    if kind is None:
        return None
    severity, what, advice = DAMAGE[kind]
    return Finding(kind, severity, what, 1, (_number(build),), advice)


def _repair(engine: Engine, files: IndexFiles, build: Build) -> str:
    """Restore one copy of the file from the other, or retire the build."""
    kind, file = _damage(engine, files, build), files.path(build.sha256)
    with engine.begin() as connection:
        if kind == "index-chunks-damaged":
            index_builds.drop_file(connection, build.id, build.part)
            index_builds.save_file(connection, build.id, file, build.part)
            return f"{_name(build)} was stored in the database again"
        if kind == "builds-lost":
            index_builds.retire(connection, build.id, "its file was lost")
            return f"build {build.id} was retired; run `lookalike index rebuild`"
        pieces = index_builds.read_file(connection, build.id, build.part)
        file_store.write_pieces(file, pieces)
        return f"the file of {_name(build)} was fetched from the database"


def _number(build: Build) -> str:
    """The id of a build, and which of its parts it is, counted from 1."""
    return str(build.id) if build.part is None else f"{build.id} (part {build.part + 1})"


def _name(build: Build) -> str:
    return f"build {_number(build)}"


def _unneeded_files(engine: Engine, files: IndexFiles) -> list[Path]:
    with engine.connect() as connection:
        builds = index_builds.published(connection)
    needed = {file.sha256 for build in builds for file in build.files}
    return file_store.unneeded_files(files.folder, needed)


def _find_unneeded(engine: Engine, files: IndexFiles) -> Finding | None:
    tally = ExampleTally()
    for file in _unneeded_files(engine, files):
        tally.add(file.name)
    return tally.finding(
        "files-left", "warning", "files in the folder of indexes that no build needs",
        f"Two databases need two folders: see that they are not another's. {RUN_REPAIR}",
    )  # fmt: skip


def _delete_unneeded(engine: Engine, files: IndexFiles) -> str:
    deleted = file_store.delete_files(_unneeded_files(engine, files))
    return f"{deleted} files were removed from {files.folder}"


def _retire_foreign(engine: Engine) -> str:
    with engine.begin() as connection:
        return f"{index_builds.retire_foreign(connection)} builds were retired"


def _abandon(engine: Engine) -> str:
    with engine.begin() as connection:
        index_builds.reject_unfinished(connection, "its builder disappeared")
    return "they were recorded as rejected"


def _drop_retired(engine: Engine) -> str:
    with engine.begin() as connection:
        index_builds.drop_retired_files(connection)
    return "they were removed from the database"


BEFORE = (
    IntegrityQuery(
        "builds-foreign", "warning", "builds that another database made",
        integrity.BUILDS_FOREIGN, f"No search uses them. {RUN_REPAIR}", _retire_foreign,
    ),
    IntegrityQuery(
        "builds-abandoned", "warning", "builds whose builder disappeared",
        integrity.BUILDS_ABANDONED, f"The next build clears them away. {RUN_REPAIR}", _abandon,
    ),
)  # fmt: skip
AFTER = (
    IntegrityQuery(
        "chunks-retired", "warning", "builds that are not in use and still in the database",
        integrity.CHUNKS_RETIRED, f"They take room. {RUN_REPAIR}", _drop_retired,
    ),
)  # fmt: skip
