"""A builder killed at any step leaves correct searches and no files behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.queries import embeddings, index_builds
from app.index import faiss_io
from app.index.faiss_library import faiss
from app.index.file_store import IndexFiles
from support.colours import choose_colours
from support.forks import Fork, fork
from support.published_builds import assert_clean, assert_whole, published, rebuild
from support.search_checks import best_sku, exact_plan
from support.shop import add, numbered

BEFORE_THE_ROW = [
    "before the content is read",
    "before the file",
    "half the file",
    "before the file has its name",
    "after the file has its name",
    "before the chunks",
    "before the row",
    "before the row is committed",
]
AFTER_THE_ROW = ["after the row", "before old files are deleted", "after old files are deleted"]

Tell = Callable[[str], None]


def build_and_pause(settings: Settings, step: str, tell: Tell) -> None:
    """Build, and pause for ever at a step; runs in a child process."""

    def pause() -> None:
        tell("paused")
        signal.pause()

    def stop(owner: Any, name: str, *, after: bool = False) -> None:
        real = getattr(owner, name)

        def paused(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named) if after else None
            pause()
            return result

        setattr(owner, name, paused)

    write = faiss_io.write

    def write_half(index: Any, file: Any) -> Any:
        _, size = write(index, file)
        file.truncate(size // 2)
        pause()

    steps: dict[str, Callable[[], None]] = {
        "before the content is read": lambda: stop(embeddings, "stream"),
        "before the file": lambda: stop(IndexFiles, "write"),
        "half the file": lambda: setattr(faiss_io, "write", write_half),
        "before the file has its name": lambda: stop(Path, "replace"),
        "after the file has its name": lambda: stop(Path, "replace", after=True),
        "before the chunks": lambda: stop(index_builds, "save_file"),
        "before the row": lambda: stop(index_builds, "finish"),
        "before the row is committed": lambda: stop(index_builds, "finish", after=True),
        "after the row": lambda: stop(index_builds, "retire_older"),
        "before old files are deleted": lambda: stop(IndexFiles, "remove"),
        "after old files are deleted": lambda: stop(IndexFiles, "remove", after=True),
    }
    steps[step]()
    App(settings, choose=choose_colours).indexer.rebuild()
    tell("never stopped")


def test_a_fork_searches_after_threads_have_searched_here() -> None:
    library = faiss()
    index, before = library.IndexFlatIP(64), library.omp_get_max_threads()
    vectors = np.random.default_rng(1).normal(size=(20_000, 64)).astype(np.float32)
    index.add(vectors)
    library.omp_set_num_threads(2)
    try:
        expected = index.search(vectors[:10], 3)[1]
        child = fork(lambda tell: tell(str(index.search(vectors[:10], 3)[1].tolist())))
        found = child.output.read()
        assert (child.wait(), found) == (0, f"{expected.tolist()}\n")
    finally:
        library.omp_set_num_threads(before)


@pytest.fixture
def builder() -> Iterator[Callable[[Settings, str], Fork]]:
    """Starts a builder and returns when it pauses at a step; ends it with the test."""
    started: list[Fork] = []

    def begin(settings: Settings, step: str) -> Fork:
        started.append(fork(lambda tell: build_and_pause(settings, step, tell)))
        assert started[-1].output.readline() == "paused\n"
        return started[-1]

    yield begin
    for process in started:
        process.kill()


@pytest.mark.parametrize("step", BEFORE_THE_ROW + AFTER_THE_ROW)
def test_a_builder_killed_at_any_step_leaves_correct_searches_and_no_files(
    app: App, settings: Settings, sql: psycopg.Connection, step: str,
    builder: Callable[[Settings, str], Fork],
) -> None:  # fmt: skip
    before = []
    for first in (0, 30):  # as many builds as are kept, so that one will be retired
        add(app, numbered(30, first=first))
        before.append(app.indexer.rebuild().id)
    add(app, {"NEW": [1000]})
    app.catalog.delete(["P0003"])
    process = builder(settings, step)
    standing = exact_plan(app)
    process.kill()
    assert process.returncode == -signal.SIGKILL
    assert_whole(sql, settings.index_folder)
    new = [build for build, _ in published(sql) if build not in before]
    assert len(new) == (step in AFTER_THE_ROW)
    with App(settings, choose=choose_colours) as other:
        for plan in (standing, exact_plan(app), exact_plan(other)):
            assert (plan.path, plan.build) == ("faiss", new[0] if new else before[-1])
        app.catalog.delete(["P0005"])  # otherwise the orphan would have the name of the next file
        last = rebuild(other)
        assert_clean(sql, settings.index_folder)
        assert (exact_plan(app).build, exact_plan(other).build) == (last, last)
        assert best_sku(app, 1000) == "NEW"
