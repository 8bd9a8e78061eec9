"""Who may ask: keys, scopes, rates, expiry, revocation, origins, and this machine without a key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from app.api.access import required_scope
from app.api.application import endpoints
from app.bootstrap import App
from app.errors import BadInput, UnknownKey
from app.operations.api_keys import parse_expiry, parse_rate
from support.api_client import ApiClient, ApiResponse, api_served
from support.shop import add, numbered

PROBLEM = "urn:lookalike:problem:"
SEARCH = {"sku": "P0001", "k": 1}


@pytest.fixture
def server(app: App) -> Iterator[ApiClient]:
    add(app, numbered(3))
    with api_served(app) as client:
        yield client


def kind(response: ApiResponse) -> tuple[int, str]:
    return response.status, response.json()["type"].removeprefix(PROBLEM)


def test_a_key_is_valid_until_it_is_revoked(server: ApiClient, app: App) -> None:
    key = app.api_keys.create("search")
    client = server.with_key(key)
    assert client.post("/v1/search", SEARCH).status == 200
    assert kind(server.post("/v1/search", SEARCH)) == (401, "key-missing")
    app.api_keys.revoke(key.split("_")[1])
    refused = client.post("/v1/search", SEARCH)
    assert kind(refused) == (401, "key-refused")
    assert refused.headers["www-authenticate"] == "Bearer"
    [listed] = app.api_keys.listed()
    assert listed.state == "revoked" and key.split("_", 2)[2] not in repr(listed)


def test_wrong_keys_are_refused_alike(server: ApiClient, app: App) -> None:
    key = app.api_keys.create("search")
    last = "A" if key[-3] != "A" else "B"
    id_ = "a" * 12
    wrong = (
        key[:-3] + last + key[-2:], f"lk_{id_}_{key[-43:]}", key[:-1], key.upper(), "", "lk__",
        "x" * 5000, "é",
    )  # fmt: skip
    answers = {server.with_key(each).post("/v1/search", SEARCH).body for each in wrong}
    assert len(answers) == 1 and b"key-refused" in answers.pop()
    basic = server.post("/v1/search", SEARCH, Authorization=f"Basic {key}")
    assert kind(basic) == (401, "key-refused")
    assert server.with_key(key).post("/v1/search", SEARCH).status == 200


def test_the_key_itself_is_not_stored(app: App, sql: psycopg.Connection) -> None:
    key = app.api_keys.create("search", name="shop")
    secret = key.split("_", 2)[2].encode()
    [row] = sql.execute("SELECT api_key::text, digest FROM api_key").fetchall()
    assert secret not in row[0].encode() and secret.hex() not in row[0] and len(row[1]) == 32


def test_with_the_first_key_the_secret_of_cursors_is_stored(
    app: App, sql: psycopg.Connection
) -> None:
    """A process that searches a replica cannot store it."""
    app.api_keys.create("search")
    stored = sql.execute("SELECT secret FROM api_secret WHERE name = 'cursors'").fetchone()
    app.api_keys.create("search")
    assert stored == (app.api_keys.shared_secret("cursors"),)


def test_an_expired_key_is_refused(server: ApiClient, app: App, sql: psycopg.Connection) -> None:
    key = app.api_keys.create("search", expires_at=datetime.now(UTC) + timedelta(days=1))
    assert server.with_key(key).post("/v1/search", SEARCH).status == 200
    sql.execute("UPDATE api_key SET expires_at = now()")
    assert kind(server.with_key(key).post("/v1/search", SEARCH)) == (401, "key-refused")
    assert app.api_keys.listed()[0].state == "expired"


def test_a_scope_includes_the_smaller_ones(server: ApiClient, app: App) -> None:
    keys = {scope: app.api_keys.create(scope) for scope in ("search", "write", "admin")}
    for scope, allowed in (("search", 1), ("write", 2), ("admin", 3)):
        client = server.with_key(keys[scope])
        answers = [
            client.post("/v1/search", SEARCH),
            client.send("DELETE", "/v1/products/unknown"),
            client.get("/v1/status"),
        ]
        refused = [answer.status == 403 for answer in answers]
        assert refused == [number >= allowed for number in range(3)]


def test_every_endpoint_has_the_scope_that_it_should(app: App) -> None:
    scopes = {
        (method.upper(), path): required_scope(method.upper(), path)
        for path, methods in endpoints(app).openapi()["paths"].items()
        for method in methods
    }
    open_ = {call for call, scope in scopes.items() if scope is None}
    assert open_ == {("GET", "/healthz"), ("GET", "/v1/pictures/{sha256}/thumbnail")}
    admin = {call for call, scope in scopes.items() if scope == "admin"}
    assert admin == {("GET", "/v1/status"), ("GET", "/metrics")}
    write = {call for call, scope in scopes.items() if scope == "write"}
    product = "/v1/products/{sku}"
    assert write == {("PUT", product), ("DELETE", product), ("POST", "/v1/products:batch")}


def test_a_key_has_no_more_requests_than_its_rate(server: ApiClient, app: App) -> None:
    client = server.with_key(app.api_keys.create("search", rate=0.001))
    assert client.post("/v1/search", SEARCH).status == 200
    refused = client.post("/v1/search", SEARCH)
    assert kind(refused) == (429, "rate-exceeded")
    assert 900 <= int(refused.headers["retry-after"]) <= 1001
    other = server.with_key(app.api_keys.create("search"))
    assert [other.post("/v1/search", SEARCH).status for _ in range(3)] == [200] * 3


def test_a_page_of_its_origin_may_use_a_key(server: ApiClient, app: App) -> None:
    client = server.with_key(app.api_keys.create("search", origins=["https://shop.example"]))
    preflight = {"Access-Control-Request-Method": "POST"}
    for origin, allowed in (("https://shop.example", True), ("https://evil.example", False)):
        asked = server.send("OPTIONS", "/v1/search", None, preflight | {"Origin": origin})
        assert asked.status == 204 and asked.headers["vary"] == "Origin"
        given = asked.headers.get("access-control-allow-origin")
        assert given == (origin if allowed else None)
        answer = client.post("/v1/search", SEARCH, Origin=origin)
        assert answer.status == (200 if allowed else 403)
        assert answer.headers.get("access-control-allow-origin") == given
    assert client.post("/v1/search", SEARCH).status == 200
    write = server.send(
        "OPTIONS", "/v1/status", None, preflight | {"Origin": "https://shop.example"}
    )
    assert "access-control-allow-origin" not in write.headers


def test_a_revoked_key_takes_its_origins_with_it(server: ApiClient, app: App) -> None:
    key = app.api_keys.create("search", origins=["https://shop.example"])
    app.api_keys.revoke(key.split("_")[1])
    headers = {"Access-Control-Request-Method": "GET", "Origin": "https://shop.example"}
    asked = server.send("OPTIONS", "/v1/search", None, headers)
    assert "access-control-allow-origin" not in asked.headers


def test_without_any_key_this_machine_reads_and_does_not_write(server: ApiClient, app: App) -> None:
    assert server.post("/v1/search", SEARCH).status == 200
    assert server.get("/v1/status").status == 200
    refused = server.send("DELETE", "/v1/products/P0001")
    assert kind(refused) == (401, "key-missing")
    assert "lookalike key create --scope write" in refused.json()["detail"]
    app.api_keys.revoke(app.api_keys.create("search").split("_")[1])
    assert kind(server.post("/v1/search", SEARCH)) == (401, "key-missing")


def test_without_any_key_web_pages_are_refused(server: ApiClient) -> None:
    """A page may send requests to this machine, and give its own name the address of it."""
    page = server.post("/v1/search", SEARCH, Origin="https://evil.example")
    assert kind(page) == (401, "key-missing")
    rebound = server.post("/v1/search", SEARCH, Host="evil.example:8502")
    assert kind(rebound) == (401, "key-missing")
    assert server.post("/v1/search", SEARCH, Host="localhost:8502").status == 200


def test_another_address_than_loopback_needs_a_key(app: App) -> None:
    add(app, numbered(2))
    with api_served(app, host="0.0.0.0") as served:
        client = ApiClient(served.url.replace("0.0.0.0", "127.0.0.1"))
        assert client.get("/healthz").status == 200
        assert kind(client.post("/v1/search", SEARCH)) == (401, "key-missing")
        key = app.api_keys.create("search")
        assert client.with_key(key).post("/v1/search", SEARCH).status == 200


@pytest.mark.parametrize(
    ("scope", "more", "message"),
    [
        ("write", {"origins": ["https://shop.example"]}, "everybody who opens the page"),
        ("search", {"origins": ["shop.example"]}, "is not an origin"),
        ("search", {"origins": ["https://shop.example/path"]}, "is not an origin"),
        ("search", {"origins": ["*"]}, "is not an origin"),
        ("search", {"rate": 0.0}, "more than 0"),
        ("search", {"rate": float("nan")}, "more than 0"),
        ("search", {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expired already"),
        ("search", {"name": "\0"}, "NUL"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_created(
    app: App, scope: str, more: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        app.api_keys.create(scope, **more)  # type: ignore[arg-type]
    assert app.api_keys.listed() == []


def test_an_unknown_key_cannot_be_revoked(app: App) -> None:
    with pytest.raises(UnknownKey, match="lookalike key list"):
        app.api_keys.revoke("nope")


def test_rates_and_expiries_are_read() -> None:
    assert [parse_rate(text) for text in ("5/s", "30/min", "3600/h", "2.5")] == [5, 0.5, 1, 2.5]
    assert parse_expiry("2031-05-01") == datetime(2031, 5, 1, tzinfo=UTC)
    assert timedelta(hours=11) < parse_expiry("12h") - datetime.now(UTC) <= timedelta(hours=12)
    for wrong in ("0/s", "fast", "-1/s", "1/d"):
        with pytest.raises(BadInput, match="30/min"):
            parse_rate(wrong)
    for wrong in ("tomorrow", "30", "30w"):
        with pytest.raises(BadInput, match="30d"):
            parse_expiry(wrong)
