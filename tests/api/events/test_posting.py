"""Events over HTTP: which are accepted, by whom, and what is stored of them."""

from __future__ import annotations

import itertools

import psycopg
import pytest

from app.api.events import MAX_EVENTS
from app.api.problems import RateExceeded
from app.api.rate_limits import Rates
from app.bootstrap import App
from support.api_client import api_served
from support.colours import photo
from support.event_shop import Shop, event, kind, post
from support.shop import add, numbered


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
