"""How far behind a standby is, and what it does not do."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from app.bootstrap import App
from app.config import Settings
from app.db.engine import snapshot
from app.errors import BuildRefused, DatabaseUnsuitable
from app.operations import health
from app.operations.migrate import migrate
from support import servers
from support.colours import choose_colours
from support.search_checks import exact_plan
from support.servers import paused
from support.shop import add, numbered

pytestmark = pytest.mark.xdist_group("replica")


def test_the_plan_states_the_lag_of_the_standby(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(20))
    servers.catch_up(server_home, standby_home)
    assert exact_plan(app).replica_lag_s is None
    servers.wait_until(lambda: exact_plan(replica).replica_lag_s == 0.0, "the standby is not level")
    with paused(server_home, standby_home):
        assert exact_plan(replica).replica_lag_s == 0.0
        add(app, numbered(5, first=20))
        servers.wait_until_received(server_home, standby_home)
        first = exact_plan(replica).replica_lag_s
        servers.ask(server_home, "SELECT pg_sleep(0.3) IS NULL")
        second = exact_plan(replica).replica_lag_s
        assert first is not None and second is not None
        assert 0.0 < first < first + 0.3 <= second < 60
    servers.wait_until(lambda: exact_plan(replica).replica_lag_s == 0.0, "the standby is not level")


def test_a_restarted_standby_without_new_data_has_no_lag(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    """It requests the last WAL file from its beginning, which it has replayed already."""
    add(app, numbered(20))
    servers.catch_up(server_home, standby_home)
    servers.crash(standby_home)
    servers.start(standby_home)
    streams = "SELECT pg_last_wal_receive_lsn() IS NOT NULL"
    servers.wait_until(lambda: servers.ask(standby_home, streams), "the standby does not follow")
    servers.wait_until(
        lambda: exact_plan(replica).replica_lag_s == 0.0, "the standby is not level", 5
    )


# What a standby does not do


def test_a_build_on_a_standby_is_refused_with_a_reason(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    servers.catch_up(server_home, standby_home)
    with pytest.raises((BuildRefused, DatabaseUnsuitable), match="replica"):
        replica.indexer.rebuild()
    assert (exact_plan(app).build, exact_plan(replica).build) == (build.id, build.id)
    assert app.indexer.rebuild().id == build.id + 1


def test_a_build_refused_on_a_standby_does_not_touch_the_one_that_runs_on_the_primary(
    app: App, replica: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have separate locks, but share the folder."""
    add(app, numbered(60))
    replace = Path.replace

    def meanwhile(self: Path, target: Path) -> Path:
        with pytest.raises((BuildRefused, DatabaseUnsuitable), match="replica"):
            replica.indexer.rebuild()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    assert app.indexer.rebuild().state == "published"


def test_a_standby_refuses_products_and_migrations_with_a_reason(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(5))
    servers.catch_up(server_home, standby_home)
    with pytest.raises(DatabaseUnsuitable, match="replica"):
        add(replica, {"NEW": [1000]})
    with pytest.raises(DatabaseUnsuitable, match="replica"):
        replica.catalog.delete(["P0001"])
    with pytest.raises(DatabaseUnsuitable, match="replica"):
        migrate(replica.engine)


def test_status_works_on_the_standby(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    add(app, numbered(5, first=60))
    servers.catch_up(server_home, standby_home)
    status = health.status(replica.engine, replica.files, replica.settings)
    assert status.healthy, status
    values = {check.name: check.value for check in status.checks}
    assert (values["products"], values["delta_rows"]) == (65, 5)
    assert values["build"].startswith(f"{build.id}: flat, 60 rows")


def ask(app: App, question: str) -> object:
    with snapshot(app.engine) as connection:
        return connection.execute(text(question)).scalar_one()


def test_sessions_on_the_standby_have_their_own_settings(
    app: App, replica_settings: Settings
) -> None:
    own = replica_settings.model_copy(update={"statement_timeout_s": 7.0})
    with App(own, choose=choose_colours) as replica:
        assert [ask(one, "SELECT pg_is_in_recovery()") for one in (app, replica)] == [False, True]
        assert ask(app, "SHOW statement_timeout") == "1min"
        assert ask(replica, "SHOW statement_timeout") == "7s"


def test_read_only_and_plain_connections_alternate_on_a_standby(replica: App) -> None:
    """A read-only connection of the pool is not reused for writing."""
    for _ in range(3):
        ask(replica, "SELECT 1")
        assert replica.catalog.model().name == "colours"
