"""Events over HTTP, the searches they refer to, the views of both, and evaluation by them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from app.api.events import MAX_EVENTS
from app.api.problems import RateExceeded
from app.api.rate_limits import Rates
from app.bootstrap import App
from app.cli import cli
from app.errors import BadSource
from app.evaluation import event_queries
from app.evaluation.labelled_queries import evaluate
from app.operations.integrity import CheckOptions, check
from app.operations.search_events import EventCleanupLoop
from app.types import Filters, Query
from support.analysts import login
from support.api_client import ApiClient, ApiResponse, api_served
from support.colours import photo
from support.shop import add, numbered


@dataclass(frozen=True)
class Shop:
    """A served catalogue, and a client with a key that records queries."""

    app: App
    client: ApiClient
    sql: psycopg.Connection

    def rows(self, query: str) -> list[Any]:
        return self.sql.execute(query).fetchall()  # type: ignore[arg-type]

    def written(self) -> None:
        """Write the searches that are queued."""
        self.app.events._queue.flush()


@pytest.fixture
def shop(app: App, sql: psycopg.Connection) -> Iterator[Shop]:
    add(app, numbered(6), brand="Kestrel")
    with api_served(app) as served:
        key = app.api_keys.create("search", records="queries")
        yield Shop(app, served.with_key(key), sql)


def event(action: str, query_id: str, sku: str | int | None, **more: object) -> dict[str, object]:
    attributes = {} if sku is None else {"event_attributes": {"object": {"object_id": sku}}}
    return {"action_name": action, "query_id": query_id, **attributes, **more}


def post(client: ApiClient, *events: dict[str, object]) -> ApiResponse:
    return client.post("/v1/events", {"events": events})


def kind(response: ApiResponse) -> str:
    return str(response.json()["type"].rpartition(":")[2])


# What is accepted


def test_an_event_of_ubi_is_stored_without_what_may_tell_who_a_person_is(shop: Shop) -> None:
    sent = {
        "application": "shop", "action_name": "click", "query_id": "q1", "client_id": "c1",
        "session_id": "s1", "user_id": "ada", "timestamp": "2026-11-30T10:00:00+01:00",
        "message_type": "CLICK", "message": "ada@example.com",
        "event_attributes": {
            "object": {"object_id": 17, "object_id_field": "sku", "internal_id": "x"},
            "position": {"ordinal": 3, "xy": {"x": 1, "y": 2}}, "ip": "10.0.0.1",
        },
    }  # fmt: skip
    answer = post(shop.client, sent)
    assert (answer.status, answer.json()) == (
        200, {"stored": 1, "dropped": ["user_id", "message", "message_type"]}
    )  # fmt: skip
    [(row,)] = shop.rows("SELECT to_jsonb(e) - 'id' - 'at' FROM search_event AS e")
    assert row == {
        "query_id": "q1", "action_name": "click", "sku": "17", "position": 3, "client_id": "c1",
        "session_id": "s1", "application": "shop", "occurred_at": "2026-11-30T09:00:00+00:00",
    }  # fmt: skip


def test_a_time_may_have_any_offset(shop: Shop) -> None:
    at = "2026-11-30T10:00:00-23:30"
    assert post(shop.client, event("click", "q", "A", timestamp=at)).status == 200
    [(stored,)] = shop.rows("SELECT occurred_at::text FROM search_event")
    assert stored.startswith("2026-12-01 09:30:00")


def test_an_address_of_a_person_is_refused(shop: Shop) -> None:
    addresses = (
        "ada@example.com", "Ada <ada@shop.example>", "203.0.113.7", "2001:db8::1", "[::1]",
        "203.0.113.7:51234", "[2001:db8::1]:443", "203.0.113.7, 198.51.100.2",
    )  # fmt: skip
    names = ("client_id", "session_id", "application", "query_id")
    for name, address in itertools.product(names, addresses):
        refused = post(shop.client, event("click", "q", "P0001") | {name: address})
        assert (refused.status, kind(refused)) == (422, "invalid-request")
        assert "does not tell who it is" in str(refused.json()["errors"]), (name, address)
    not_addresses = {"client_id": "BugsBunny::Firefox@0967084", "application": "shop 1.2.3"}
    assert post(shop.client, event("click", "q", "P0001") | not_addresses).status == 200


def test_events_are_stored_together_or_not_at_all(shop: Shop) -> None:
    isbn = {"object": {"object_id": "A", "object_id_field": "isbn"}}
    wrong: list[dict[str, object]] = [
        event("click", "q", None),
        event("click", "q", ""),
        event("click", "", "A"),
        event("click", "q", "A\0"),
        {"action_name": "click", "event_attributes": {"object": {"object_id": "A"}}},
        event("click", "q", "A", ip="10.0.0.1"),
        event("click", "q", "A", timestamp="yesterday"),
        event("click", "q", "A", timestamp="0001-01-01T00:00:00+01:00"),
        event("x" * 101, "q", "A"),
        event("click", "q", "A") | {"event_attributes": isbn},
    ]
    for each in wrong:
        refused = post(shop.client, event("click", "q", "P0001"), each)
        assert (refused.status, kind(refused)) == (422, "invalid-request"), each
        assert "events.1" in str(refused.json()["errors"]), each
    assert shop.rows("SELECT count(*) FROM search_event") == [(0,)]


def test_events_need_a_key_of_any_scope_also_on_this_machine(app: App) -> None:
    with api_served(app) as served:
        refused = post(served, event("click", "q", "A"))  # a search would need none
        assert (refused.status, kind(refused)) == (401, "key-missing")
        for scope in ("search", "write", "admin"):
            client = served.with_key(app.api_keys.create(scope))  # type: ignore[arg-type]
            assert post(client, event("click", "q", "A")).status == 200


def test_a_page_of_an_allowed_origin_may_post_events(shop: Shop) -> None:
    origin = "https://shop.example"
    shop.app.api_keys.create("search", origins=[origin])
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    allowed = shop.client.with_key(None).send("OPTIONS", "/v1/events", None, asked)
    assert allowed.headers["access-control-allow-origin"] == origin


def test_a_key_may_post_so_many_events_in_a_second_and_no_more(shop: Shop) -> None:
    batch = [event("click", "q", "P0001")] * MAX_EVENTS
    assert post(shop.client, *batch).status == 200
    refused = post(shop.client, *batch)
    assert (refused.status, kind(refused)) == (429, "rate-exceeded")
    assert int(refused.headers["retry-after"]) >= 1
    assert post(shop.client, *batch, batch[0]).status == 422  # above 100


def test_a_batch_that_fits_no_second_is_let_in_after_a_while() -> None:
    rates = Rates(at_least=100)
    rates.take("key", 0.5, 100)
    with pytest.raises(RateExceeded, match=r"0\.5 events a second; wait 20[01] s"):
        rates.take("key", 0.5, 100)


def test_with_a_retention_of_no_days_nothing_is_recorded(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(2))
    settings = app.settings.model_copy(update={"event_days": 0})
    with App(settings, choose=app._choose) as off, api_served(off) as served:
        client = served.with_key(off.api_keys.create("search", records="queries"))
        refused = post(client, event("click", "q", "A"))
        assert (refused.status, kind(refused)) == (403, "events-off")
        assert client.post("/v1/search", {"sku": "P0001"}).status == 200
        assert client.post_form("/v1/photos", {"file": photo(1)}).status == 201
    rows = "SELECT (SELECT count(*) FROM search_request), (SELECT count(*) FROM kept_photo)"
    assert sql.execute(rows).fetchall() == [(0, 0)]  # type: ignore[arg-type]


# What is recorded of searches


def test_a_search_is_recorded_with_what_it_showed(shop: Shop) -> None:
    first = shop.client.post("/v1/search", {"sku": "P0001", "k": 2, "filters": ["brand=Kestrel"]})
    page = {"sku": "P0001", "k": 2, "filters": ["brand=Kestrel"], "cursor": first.json()["cursor"]}
    answers = [
        first,
        shop.client.post("/v1/search", page),
        shop.client.post_form("/v1/search/photo", {"file": photo(1)}, {"query": '{"k": 1}'}),
        shop.client.get("/v1/products/P0002/similar?k=1&filter=brand=Kestrel"),
    ]
    shop.written()
    found = {
        row[0]: row[1:]
        for row in shop.rows(
            "SELECT query_id, kind, k, skipped, shown, model, path, words, sku, filters"
            " FROM search_request"
        )
    }
    rows = [found.pop(answer.json()["query_id"]) for answer in answers]
    assert found == {}
    for answer, row in zip(answers, rows, strict=True):
        document = answer.json()
        assert row[3] == [match["sku"] for match in document["matches"]]
        assert row[4:6] == (document["model"], document["path"])
    assert [row[:3] for row in rows] == [
        ("sku", 2, 0), ("sku", 2, 2), ("photo", 1, 0), ("sku", 1, 0)
    ]  # fmt: skip
    # The query of a further page, or with a photo that is not stored, cannot be asked again.
    assert [row[6:] for row in rows] == [
        (None, "P0001", ["brand=Kestrel"]), (None, None, None), (None, None, []),
        (None, "P0002", ["brand=Kestrel"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "expected"),
    [("nothing", []), ("results", [(None, None)]), ("queries", [("lamp", [])])],
)
def test_a_key_decides_what_is_recorded_of_its_searches(
    shop: Shop, records: Any, expected: list[object]
) -> None:
    client = shop.client.with_key(shop.app.api_keys.create("search", records=records))
    assert client.post("/v1/search", {"text": "lamp", "k": 1}).status == 200
    assert client.post_form("/v1/photos", {"file": photo(1)}).status == 201
    shop.written()
    assert shop.rows("SELECT words, filters FROM search_request") == expected
    kept = shop.rows("SELECT count(*) FROM kept_photo")
    assert kept == [(1 if records == "queries" else 0,)]


def test_a_search_of_an_answer_that_nobody_received_is_not_recorded(shop: Shop) -> None:
    first = shop.client.get("/v1/products/P0001/similar")
    again = {"If-None-Match": first.headers["etag"]}
    assert shop.client.get("/v1/products/P0001/similar", again).status == 304
    shop.written()
    assert shop.rows("SELECT query_id FROM search_request") == [(first.json()["query_id"],)]


# The views


def test_the_views_count_searches_and_not_events(shop: Shop) -> None:
    found = [shop.client.post("/v1/search", {"sku": "P0001", "k": 3}).json() for _ in range(4)]
    ids = [each["query_id"] for each in found]
    one, two, three = (match["sku"] for match in found[0]["matches"])
    shop.written()
    posted = post(
        shop.client,
        event("impression", ids[0], one), event("impression", ids[0], one),
        event("click", ids[0], one), event("click", ids[0], one),  # sent twice
        event("click", ids[1], two), event("purchase", ids[1], two),
        event("purchase", ids[1], "BASKET"), event("click", "unknown", one),
        event("hover", ids[2], three),
    )  # fmt: skip
    assert posted.json() == {"stored": 9, "dropped": []}
    shop.app.catalog.delete([two])
    with login(shop.app) as url, psycopg.connect(url) as analyst:
        through = analyst.execute(
            "SELECT sku, in_catalogue, shown, mean_rank::float, impressions, clicks, purchases,"
            " click_through::float FROM analytics.click_through ORDER BY mean_rank"
        ).fetchall()
        assert through == [
            (one, True, 4, 1.0, 1, 1, 0, 0.25), (two, False, 4, 2.0, 0, 1, 1, 0.25),
            (three, True, 4, 3.0, 0, 0, 0, 0.0),
        ]  # fmt: skip
        without = analyst.execute(
            "SELECT query_id, kind, matches, first_sku FROM analytics.searches_without_a_click"
        ).fetchall()
        assert sorted(without) == sorted((id_, "sku", 3, one) for id_ in ids[2:])
        clicks = analyst.execute(
            "SELECT action, sku, rank, kind, title IS NULL FROM analytics.clicks"
            " ORDER BY action, sku, rank NULLS LAST"
        ).fetchall()
    assert sorted(clicks, key=str) == sorted(
        [
            ("click", one, 1, "sku", False), ("click", one, 1, "sku", False),
            ("click", one, None, None, False), ("click", two, 2, "sku", True),
            ("purchase", two, 2, "sku", True), ("purchase", "BASKET", None, "sku", True),
        ],
        key=str,
    )  # fmt: skip


# Partitions


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


# Evaluation by events


def labelled(app: App) -> list[tuple[str, str]]:
    return [
        (query.name, query.expected_sku)
        for query in event_queries.labelled(app.events.labelled(), Filters())
    ]


def test_quality_is_measured_on_what_was_clicked_and_bought(shop: Shop) -> None:
    photo_id = shop.client.post_form("/v1/photos", {"file": photo(3)}).json()["photo_id"]
    asked = [
        ({"photo_id": photo_id, "k": 3}, 0), ({"sku": "P0001", "k": 3}, 1),
        ({"sku": "P0002", "k": 3, "filters": ["brand=Kestrel"]}, 0),
    ]  # fmt: skip
    chosen = []
    for query, rank in asked:
        answer = shop.client.post("/v1/search", query).json()
        chosen.append(answer["matches"][rank]["sku"])
        shop.written()
        post(shop.client, event("click", answer["query_id"], chosen[-1]))
    shop.sql.execute("UPDATE query_photo SET expires_at = now()")  # the photo itself is gone
    names = [name for name, _ in labelled(shop.app)]
    assert sorted(zip(names, (sku for _, sku in labelled(shop.app)), strict=True)) == sorted(
        [
            (f"photo {photo_id}", chosen[0]), ("like P0001", chosen[1]),
            ("like P0002 + [brand=Kestrel]", chosen[2]),
        ]
    )  # fmt: skip
    queries = event_queries.labelled(shop.app.events.labelled(), Filters())
    told: list[str] = []
    found = evaluate(shop.app.engine, shop.app.search, queries, Query(), told.append)
    assert told == []
    assert sorted(
        (outcome.query.split()[0], outcome.rank) for outcome in found.outcomes
    ) == [("like", 1), ("like", 2), ("photo", 1)]  # fmt: skip


def test_of_a_search_the_strongest_action_counts_and_only_on_what_it_showed(shop: Shop) -> None:
    answer = shop.client.post("/v1/search", {"sku": "P0001", "k": 3}).json()
    one, two, three = (match["sku"] for match in answer["matches"])
    shop.written()
    post(
        shop.client, event("click", answer["query_id"], one),
        event("purchase", answer["query_id"], two), event("purchase", answer["query_id"], "BASKET"),
        event("impression", answer["query_id"], three), event("purchase", "unknown", three),
    )  # fmt: skip
    assert labelled(shop.app) == [("like P0001", two)]


def test_without_clicks_the_evaluation_says_what_is_missing(shop: Shop) -> None:
    shop.client.post("/v1/search", {"sku": "P0001", "k": 3})
    shop.written()
    with pytest.raises(BadSource, match="--record queries"):
        labelled(shop.app)


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
