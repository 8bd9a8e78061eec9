"""Partitions of events by day, and how long events and photos are kept."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from app.bootstrap import App
from app.cli import cli
from app.operations.integrity import CheckOptions, check
from app.operations.search_events import EventCleanupLoop
from support.analysts import login
from support.colours import photo
from support.event_shop import Shop, event, post


def test_events_are_stored_although_no_worker_prepared_the_day(shop: Shop) -> None:
    parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'search_event'::regclass"
    assert shop.rows(parts) == [(0,)]
    assert post(shop.client, event("click", "q", "P0001")).status == 200
    assert shop.rows(parts) == [(3,)]  # today and two days ahead


def test_days_beyond_the_retention_are_deleted_by_worker_and_command(shop: Shop, app: App) -> None:
    app.events.clean_up()
    old = ("CURRENT_DATE - 31", "CURRENT_DATE - 40")
    for day in old:
        shop.sql.execute(add_day(shop, "search_event", day))
    assert [each.kind for each in check_events(app)] == ["events-overdue"]
    assert EventCleanupLoop(app.events)._clean_up() == ""
    assert check_events(app) == []
    kept = "SELECT to_regclass('search_event_' || to_char({}, 'YYYYMMDD')) IS NULL"
    assert [shop.rows(kept.format(day)) for day in old] == [[(True,)], [(True,)]]
    shop.sql.execute(add_day(shop, "search_event", "CURRENT_DATE - 31"))
    settings = {
        "LOOKALIKE_DATABASE_URL": str(app.settings.database_url),
        "LOOKALIKE_HOME": str(app.settings.home),
    }
    done = CliRunner().invoke(cli, ["events", "prune", "--json"], env=settings)
    assert json.loads(done.stdout) == {"added": 0, "dropped": 1, "photos": 0}
    shop.sql.execute(add_day(shop, "search_event", "CURRENT_DATE - 29"))
    assert app.events.clean_up().dropped == 0


def add_day(shop: Shop, parent: str, day: str) -> Any:
    [(name, first, last)] = shop.rows(
        f"SELECT '{parent}_' || to_char({day}, 'YYYYMMDD'), {day}, {day} + 1"
    )
    return f"CREATE TABLE {name} PARTITION OF {parent} FOR VALUES FROM ('{first}') TO ('{last}')"


def check_events(app: App) -> list[Any]:
    report = check(app.engine, app.files, app.limits, CheckOptions(event_days=30))
    return [each for each in report.findings if each.kind.startswith("events")]


def test_events_on_products_that_are_gone_are_kept_and_named(shop: Shop) -> None:
    post(shop.client, event("click", "q", "P0001"), event("click", "q", "GONE"))
    shop.app.catalog.delete(["P0001"])
    [finding] = check_events(shop.app)
    assert (finding.kind, finding.severity, sorted(finding.examples)) == (
        "events-on-nothing", "info", ["GONE", "P0001"]
    )  # fmt: skip


def test_only_who_may_write_events_creates_and_drops_their_partitions(shop: Shop) -> None:
    with login(shop.app) as url, psycopg.connect(url, autocommit=True) as analyst:
        analyst.execute("SET default_transaction_read_only = off")
        for call in ("add_search_partitions(1)", "drop_search_partitions(0)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                analyst.execute(f"SELECT public.{call}".encode())


def test_partitions_are_created_for_a_month_ahead_at_most(shop: Shop) -> None:
    shop.sql.execute("SELECT add_search_partitions(40)")
    [(days,)] = shop.rows(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'search_event'::regclass"
    )
    assert days == 32


def test_photos_are_kept_for_a_day_and_with_a_click_as_long_as_events(shop: Shop) -> None:
    ids = [
        shop.client.post_form("/v1/photos", {"file": photo(n)}).json()["photo_id"] for n in range(3)
    ]
    answer = shop.client.post("/v1/search", {"photo_id": ids[0], "k": 1}).json()
    shop.written()
    post(shop.client, event("click", answer["query_id"], answer["matches"][0]["sku"]))
    shop.sql.execute("UPDATE kept_photo SET kept_at = now() - interval '25 hours'")
    shop.sql.execute("UPDATE kept_photo SET kept_at = now() WHERE id = %s", [ids[2]])
    assert shop.app.events.clean_up().photos == 1
    assert {id_ for (id_,) in shop.rows("SELECT id FROM kept_photo")} == {ids[0], ids[2]}
    shop.sql.execute("UPDATE kept_photo SET kept_at = now() - interval '31 days'")
    assert shop.app.events.clean_up().photos == 2
