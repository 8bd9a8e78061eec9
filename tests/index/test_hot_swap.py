"""Swapping indexes under load: no search fails or waits, and memory does not grow."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
import weakref
from typing import Any

import numpy as np
import psutil
import pytest

from app.bootstrap import App
from app.config import Settings
from app.index.faiss_index import AnnIndex
from app.index.file_store import MAX_OPEN, IndexFiles
from app.search import index_swap
from app.types import Build, Query, SearchResult
from support.colours import choose_colours
from support.shop import add, numbered, vectors

SWAPS = 4 * MAX_OPEN


def ask(app: App) -> SearchResult:
    vector = np.ones(49, dtype=np.float32)
    return app.search.search(Query(vector=vector, model_id=app.catalog.model().id, k=5))


def test_swaps_under_load_lose_no_search_and_no_memory(app: App) -> None:
    others = opened_indexes()  # of tests that ran before in this process
    add(app, numbered(300))
    app.indexer.rebuild()
    ask(app)
    stop, failed, answered = threading.Event(), [], []

    def search_on() -> None:
        while not stop.wait(0.005):
            try:
                answered.append(ask(app).plan.path)
            except Exception as exc:
                failed.append(exc)

    threads = [threading.Thread(target=search_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    sizes = []
    for number in range(SWAPS):
        add(app, numbered(1, first=300 + number))  # so that every file is another
        app.indexer.rebuild()
        ask(app)
        sizes.append(memory())
    stop.set()
    for thread in threads:
        thread.join()
    ask(app)
    assert failed == []
    assert set(answered) == {"faiss"}
    gc.collect()
    assert 1 <= opened_indexes() - others <= MAX_OPEN + 1
    assert max(sizes[SWAPS // 2 :]) - max(sizes[: SWAPS // 2]) < 20e6


def opened_indexes() -> int:
    """How many indexes this process holds."""
    gc.collect()
    return sum(type(it) is AnnIndex for it in gc.get_objects())


def memory() -> int:
    """Bytes this process holds, without what it has given up and the allocator keeps for later:
    of a process that ran other tests before, that is far more than an index."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return int(psutil.Process(os.getpid()).memory_info().rss)


def test_an_index_is_freed_when_its_last_search_has_ended(app: App) -> None:
    add(app, numbered(50))
    build = app.indexer.rebuild()
    ask(app)
    held = app.files.opened(build)
    assert held is not None
    watched = weakref.ref(held.faiss_index)
    for number in range(MAX_OPEN):
        add(app, numbered(1, first=50 + number))
        app.indexer.rebuild()
        ask(app)
    gc.collect()
    assert watched() is not None  # a search still has it
    query = vectors(app, [1])[0]
    assert len(held.nominate(query, 5).ids) == 5
    del held
    gc.collect()
    assert watched() is None


def test_a_large_new_index_is_opened_while_the_old_one_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_swap, "MAX_BLOCKING_OPEN", 0)
    with App(settings, choose=choose_colours) as app, App(settings, choose=choose_colours) as other:
        add(app, numbered(50))
        first = app.indexer.rebuild()
        assert ask(app).plan.build == first.id
        opening, go_on = threading.Event(), threading.Event()
        read = IndexFiles._read

        def slowly(self: IndexFiles, build: Build, fetch: Any) -> Any:
            opening.set()
            assert go_on.wait(300)
            return read(self, build, fetch)

        monkeypatch.setattr(IndexFiles, "_read", slowly)
        add(app, {"NEW": [1000]})
        second = other.indexer.rebuild()
        result = ask(app)
        assert opening.wait(300)
        assert (result.plan.path, result.plan.build, result.plan.delta_rows) == (
            "faiss",
            first.id,
            1,
        )
        go_on.set()
        deadline = time.monotonic() + 300
        while ask(app).plan.build != second.id:
            assert time.monotonic() < deadline
            time.sleep(0.01)
