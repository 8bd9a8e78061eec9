"""A search while the file of its index is damaged, missing, or that of another cluster."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.index import faiss_index
from support.colours import choose_colours
from support.exact import assert_exact
from support.search_checks import ask
from support.shop import add, numbered


def test_an_index_that_was_unreadable_for_a_moment_is_read_again(
    app: App, settings: Settings, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(60))
    app.indexer.rebuild()
    sql.execute("DELETE FROM index_chunk")
    with App(settings, choose=choose_colours) as other:
        for owner, name, failure in (
            (hashlib, "file_digest", OSError(24, "Too many open files")),
            (faiss_index.faiss(), "read_index", MemoryError()),
        ):

            def refuse(*_: object, failure: Exception = failure, **__: object) -> None:
                raise failure

            with monkeypatch.context() as patched:
                patched.setattr(owner, name, refuse)
                assert ask(other).plan.path == "exact"
        assert ask(other).plan.path == "faiss"


HARMS = ["missing", "shorter", "one byte", "another file"]


def damage(path: Path, harm: str) -> None:
    data = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    elif harm == "shorter":
        path.write_bytes(data[:-100])
    elif harm == "one byte":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"something else")


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_index_file_is_never_searched(
    app: App, settings: Settings, sql: psycopg.Connection, harm: str
) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    sql.execute("DELETE FROM index_chunk")
    damage(app.files.path(build.sha256), harm)
    with App(settings, choose=choose_colours) as other:
        result = ask(other)
        assert result.plan.path == "exact"
        assert f"build {build.id}: index file" in result.plan.reason
        assert_exact(other, result, list(range(60)), 1000, 10)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_index_file_is_made_again_from_the_database(
    app: App, settings: Settings, harm: str
) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    whole = app.files.path(build.sha256).read_bytes()
    damage(app.files.path(build.sha256), harm)
    with App(settings, choose=choose_colours) as other:
        result = ask(other)
        assert (result.plan.path, result.plan.build) == ("faiss", build.id)
        assert_exact(other, result, list(range(60)), 1000, 10)
    assert app.files.path(build.sha256).read_bytes() == whole


def test_a_host_that_cannot_store_the_file_still_searches_it(
    app: App, settings: Settings, tmp_path: Path
) -> None:
    add(app, numbered(60))
    app.indexer.rebuild()
    (tmp_path / "file").write_text("no folder")
    elsewhere = settings.model_copy(update={"index_dir": tmp_path / "file" / "index"})
    with App(elsewhere, choose=choose_colours) as other:
        assert ask(other).plan.path == "faiss"


def test_partial_files_of_a_killed_process_are_removed(app: App, settings: Settings) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    old, young = app.files.folder / "old.part", app.files.folder / "young.part"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    app.files.path(build.sha256).unlink()
    with App(settings, choose=choose_colours) as other:
        assert ask(other).plan.build == build.id
    assert young.exists() and not old.exists()


def test_an_index_file_that_comes_back_is_used_again(
    app: App, settings: Settings, sql: psycopg.Connection
) -> None:
    add(app, numbered(60))
    path = app.files.path(app.indexer.rebuild().sha256)
    sql.execute("DELETE FROM index_chunk")
    kept = path.read_bytes()
    path.unlink()
    with App(settings, choose=choose_colours) as other:
        assert ask(other).plan.path == "exact"
        path.write_bytes(kept)
        assert ask(other).plan.path == "faiss"


def test_a_build_of_another_cluster_is_not_used(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(60))
    app.indexer.rebuild()
    sql.execute("UPDATE index_build SET cluster = '1/2'")
    assert ask(app).plan.path == "exact"
