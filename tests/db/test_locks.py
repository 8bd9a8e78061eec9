"""Advisory locks: which of them exclude each other."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from app.bootstrap import App
from app.db import locks


def autocommit(app: App) -> Connection:
    return app.engine.connect().execution_options(isolation_level="AUTOCOMMIT")


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        pytest.param(True, True, False, id="two creations of the index"),
        pytest.param(True, False, False, id="a load during the creation"),
        pytest.param(False, True, False, id="a creation during a load"),
        pytest.param(False, False, True, id="two loads"),
    ],
)
def test_the_hnsw_lock_is_shared_by_loads_only(
    app: App, first: bool, second: bool, taken: bool
) -> None:
    with (
        autocommit(app) as one,
        autocommit(app) as other,
        locks.hnsw_index(one, 1, exclusive=first) as held,
        locks.hnsw_index(other, 1, exclusive=second) as also,
    ):
        assert (held, also) == (True, taken)


def test_the_hnsw_locks_of_two_models_are_independent(app: App) -> None:
    with (
        autocommit(app) as one,
        autocommit(app) as other,
        locks.hnsw_index(one, 1, exclusive=True) as held,
        locks.hnsw_index(other, 2, exclusive=True) as also,
    ):
        assert held and also


def test_the_hnsw_lock_ends_with_its_block(app: App) -> None:
    with autocommit(app) as one, autocommit(app) as other:
        with locks.hnsw_index(one, 1, exclusive=True):
            pass
        with locks.hnsw_index(other, 1, exclusive=True) as taken:
            assert taken
