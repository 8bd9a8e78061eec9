"""Advisory locks: which of them exclude each other."""

from __future__ import annotations

from sqlalchemy import Connection

from app.bootstrap import App
from app.db import locks


def autocommit(app: App) -> Connection:
    return app.engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def test_one_process_at_a_time_changes_pgvectors_indexes_of_a_model(app: App) -> None:
    with (
        autocommit(app) as one,
        autocommit(app) as other,
        locks.pgvector_index(one, 1) as held,
        locks.pgvector_index(other, 1) as also,
    ):
        assert (held, also) == (True, False)


def test_the_pgvector_locks_of_two_models_are_independent(app: App) -> None:
    with (
        autocommit(app) as one,
        autocommit(app) as other,
        locks.pgvector_index(one, 1) as held,
        locks.pgvector_index(other, 2) as also,
    ):
        assert held and also


def test_the_pgvector_lock_ends_with_its_block(app: App) -> None:
    with autocommit(app) as one, autocommit(app) as other:
        with locks.pgvector_index(one, 1):
            pass
        with locks.pgvector_index(other, 1) as taken:
            assert taken
