"""Errors over HTTP: one stable type for each class, what to do, and nothing that is internal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from app import errors
from app.api import problems
from app.api.answers import ProblemData
from app.bootstrap import App
from app.errors import Busy, DatabaseUnavailable, LookalikeError
from support.api_client import ApiClient

PROBLEM = "urn:lookalike:problem:"


def classes(base: type[LookalikeError] = LookalikeError) -> Iterator[type[LookalikeError]]:
    yield base
    for each in base.__subclasses__():
        yield from classes(each)


def test_every_class_of_error_has_a_status_and_a_type_of_its_own() -> None:
    ours = {each for each in classes() if each.__module__ in (errors.__name__, problems.__name__)}
    assert ours <= problems.STATUS.keys()
    types = [problems.problem_type(each) for each in problems.STATUS]
    assert len(types) == len(set(types))
    assert problems.problem_type(Busy) == PROBLEM + "busy"
    assert problems.problem_type(DatabaseUnavailable) == PROBLEM + "database-unavailable"


def test_messages_of_the_installation_are_not_sent() -> None:
    secret = "connection to host db.internal as user lookalike failed"
    for each in problems.STATUS:
        document = problems.problem(each(secret))
        assert (secret in document["detail"]) == issubclass(each, problems.SHOWN)
        assert document["detail"] and 400 <= document["status"] < 600


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        (
            {"sku": "P0001", "nonsense": 1},
            "body.nonsense: There is no such field here; is it mistyped?",
        ),
        ({"sku": "P0001", "k": "5"}, "body.k: Input should be a valid integer"),
        ({"sku": "P0001", "k": 0}, "body.k: "),
        ({}, "give at least one of photo_id, sku, text and vector"),
        ({"vector": [1.0]}, "needs the model"),
        ({"vector": [1.0], "model": "nope"}, "No model 'nope' is kept up to date"),
        ({"vector": [1.0], "model": "colours"}, "must hold 49 finite numbers"),
        ({"sku": "P0001", "filters": ["brand"]}, "not of the form column=value"),
        ({"sku": "nope"}, "No product of the catalogue has the sku 'nope'"),
        ({"photo_id": "nope"}, "send the photo again"),
        ({"photo_id": "a\0"}, "send the photo again"),
        ({"sku": "P0001", "not_like": ["a\0"]}, "send the photo again"),
        ({"photo_id": "nope", "sku": "P0001"}, "send the photo again"),
        ({"sku": "P0001", "text": "a\0b"}, "NUL"),
        ({"sku": "P0001", "cursor": "nope"}, "search again without it"),
        ({"sku": "P0001", "region": [0.0, 0.0, 1.0, 1.0]}, "with a picture"),
        ([], "body: "),
        ("x", "body: "),
        (None, "body: "),
    ],
)
def test_a_wrong_search_is_refused_with_what_to_do(
    client: ApiClient, document: object, detail: str
) -> None:
    response = client.post("/v1/search", document)
    problem = ProblemData.model_validate(response.json())
    assert response.status == problem.status and problem.status in (404, 422)
    assert response.headers["content-type"] == "application/problem+json"
    assert detail in problem.detail and problem.type.startswith(PROBLEM)


@pytest.mark.parametrize("body", [b"", b"{", b'{"sku": "P0001"', b"\xff", b'{"k": 1e999}', b"nul"])
def test_a_body_that_is_no_json_is_refused(client: ApiClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.send("POST", "/v1/search", body, headers)
    assert response.status == 422 and response.json()["type"] == PROBLEM + "invalid-request"


def test_deeply_nested_json_is_refused(client: ApiClient) -> None:
    headers = {"Content-Type": "application/json"}
    deep = b'{"sku": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    response = client.send("POST", "/v1/search", deep, headers)
    assert (response.status, response.json()["type"]) == (422, PROBLEM + "invalid-request")
    assert "nested more than 16 levels" in response.json()["detail"]
    brackets = json.dumps({"text": "[" * 50, "k": 1}).encode()
    assert client.send("POST", "/v1/search", brackets, headers).status == 200


def test_a_large_body_is_refused(client: ApiClient) -> None:
    response = client.post("/v1/search", {"text": "x" * 3_000_000})
    assert (response.status, response.json()["type"]) == (413, PROBLEM + "body-too-large")


@pytest.mark.parametrize("path", ["/v1/photos", "/v1/search/photo"])
def test_bytes_that_are_no_picture_are_refused(client: ApiClient, path: str) -> None:
    response = client.post_form(path, {"file": b"no picture"})
    assert (response.status, response.json()["type"]) == (422, PROBLEM + "bad-image")


def test_wrong_forms_are_refused(client: ApiClient) -> None:
    for files, texts in (
        ({}, {}),
        ({"file": b"x", "other": b"y"}, {}),
        ({"file": b"x"}, {"k": "1"}),
    ):
        response = client.post_form("/v1/search/photo", files, texts)
        assert (response.status, response.json()["type"]) == (422, PROBLEM + "invalid-request")
    response = client.post_form("/v1/search/photo", {"file": b"x"}, {"query": '{"x": 1}'})
    assert "query.x" in response.json()["detail"]
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.send("POST", "/v1/photos", b"--y", broken).status == 422
    text = client.send("POST", "/v1/photos", b"x", {"Content-Type": "text/plain"})
    assert (text.status, text.json()["type"]) == (415, PROBLEM + "media-type-refused")


def test_a_photo_may_not_be_fetched_from_a_private_address(client: ApiClient) -> None:
    for url in ("http://127.0.0.1/x.png", "file:///etc/passwd", "nonsense"):
        response = client.post("/v1/photos", {"url": url})
        assert (response.status, response.json()["type"]) == (422, PROBLEM + "bad-image")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/photos/%00/preview", "/v1/products/%00", "/v1/products/%00/similar",
        "/v1/facets?photo_id=%00", "/v1/facets?filter=a%00%3Db", "/v1/facets?text=%00",
    ],
)  # fmt: skip
def test_what_postgresql_cannot_store_is_no_error_of_the_server(
    client: ApiClient, path: str
) -> None:
    assert client.get(path).status in (404, 422)


def test_unknown_addresses_methods_and_parameters_are_refused(client: ApiClient) -> None:
    unknown = client.get("/v1/nothing")
    assert (unknown.status, unknown.json()["type"]) == (404, PROBLEM + "address-unknown")
    method = client.get("/v1/search")
    assert (method.status, method.json()["type"]) == (405, PROBLEM + "method-refused")
    assert method.headers["allow"] == "POST"
    several = client.send("POST", "/v1/products/P0001")
    assert (several.status, several.headers["allow"]) == (405, "DELETE, GET, PUT")
    parameter = client.get("/v1/products/P0001/similar?colour=red")
    assert parameter.status == 422 and "colour" in parameter.json()["detail"]


def test_a_refused_search_may_be_sent_again(
    client: ApiClient, shared_app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise Busy()

    monkeypatch.setattr(shared_app.search, "search", busy)
    response = client.post("/v1/search", {"sku": "P0001"})
    assert (response.status, response.json()["type"]) == (503, PROBLEM + "busy")
    assert int(response.headers["retry-after"]) > 0


def test_a_bug_is_logged_and_not_shown(
    client: ApiClient,
    shared_app: App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(shared_app.search, "search", fail)
    response = client.post("/v1/search", {"sku": "P0001"})
    assert (response.status, response.json()["type"]) == (500, PROBLEM + "internal-error")
    assert b"secret" not in response.body and "the secret reason" in caplog.text
