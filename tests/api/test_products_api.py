"""Products over HTTP: reading, writing, deleting, batches with a result for each row."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.api.answers import ChangeAnswer, FacetAnswer, ProductAnswer
from app.bootstrap import App
from app.catalog.service import CatalogService
from app.errors import DatabaseUnavailable
from app.types import Query
from ingest import uploads
from support.api_client import ApiClient, ApiResponse, api_served
from support.colours import photo
from support.shop import add, numbered, sha

ROWS = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def client(app: App) -> Iterator[ApiClient]:
    add(app, numbered(3), brand="Kestrel")
    with api_served(app) as served:
        yield served.with_key(app.api_keys.create("write"))


def picture(seed: int) -> dict[str, str]:
    return {"base64": base64.b64encode(photo(seed)).decode()}


def put(client: ApiClient, sku: str, document: object) -> ApiResponse:
    headers = {"Content-Type": "application/json"}
    return client.send("PUT", f"/v1/products/{sku}", json.dumps(document).encode(), headers)


def batch(client: ApiClient, *rows: object) -> list[dict[str, Any]]:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    response = client.send("POST", "/v1/products:batch", b"\n".join(lines), ROWS)
    assert response.status == 200, response.body
    results = [json.loads(line) for line in response.body.splitlines()]
    return [ChangeAnswer.model_validate(each).model_dump() for each in results]


def test_a_product_is_added_found_changed_and_deleted(client: ApiClient, app: App) -> None:
    new = {"title": "Lamp", "price": 12.5, "attributes": {"size": 3}, "pictures": [picture(9)]}
    added = put(client, "N%201%2Fx%25", new)
    assert (added.status, added.json()["change"]) == (201, "added")
    read = client.get("/v1/products/N%201%2Fx%25").json()
    ProductAnswer.model_validate(read)
    assert (read["sku"], read["title"], read["price"]) == ("N 1/x%", "Lamp", 12.5)
    assert read["attributes"] == {"size": 3}
    assert [each["sha256"] for each in read["pictures"]] == [sha(9).hex()]
    [match] = client.post_form(
        "/v1/search/photo", {"file": photo(9)}, {"query": '{"k": 1}'}
    ).json()["matches"]
    assert (match["sku"], match["similarity"]) == ("N 1/x%", 1.0)
    changed = put(client, "N%201%2Fx%25", {"title": "Lantern"})
    assert (changed.status, changed.json()["change"]) == (200, "updated")
    read = client.get("/v1/products/N%201%2Fx%25").json()
    assert (read["title"], read["price"], len(read["pictures"])) == ("Lantern", None, 1)
    assert client.get("/v1/products/N%201%2Fx%25/similar?k=1").status == 200
    assert client.send("DELETE", "/v1/products/N%201%2Fx%25").status == 204
    assert client.get("/v1/products/N%201%2Fx%25").status == 404
    assert client.send("DELETE", "/v1/products/N%201%2Fx%25").status == 404


def test_pictures_are_sent_in_a_form_too(client: ApiClient) -> None:
    texts = {"product": json.dumps({"title": "Mug", "pictures": [picture(20)]})}
    path = "/v1/products/NEW"
    assert client.post_form(path, {"pictures": photo(21)}, texts, method="PUT").status == 201
    shown = [each["sha256"] for each in client.get(path).json()["pictures"]]
    assert shown == [sha(20).hex(), sha(21).hex()]


def test_a_batch_has_a_result_for_each_row(client: ApiClient, app: App) -> None:
    results = batch(
        client,
        {"sku": "A", "title": "Lamp", "brand": "Wren", "pictures": [picture(30)]},
        {"sku": "P0000", "colour": "red"},
        {"sku": "P0001", "brand": "Kestrel"},
        {"sku": "P0002", "delete": True},
        {"sku": "gone", "delete": True},
        b"no json",
        {"title": "without a sku"},
        {"sku": "A", "title": "again"},
        {"sku": "B", "nonsense": 1},
        {"sku": "C", "pictures": [{"base64": "bm8gcGljdHVyZQ=="}]},
        {"sku": "D", "pictures": [{"base64": "bm8gcGljdHVyZQ=="}, picture(31)]},
        {"sku": "E", "year": 123456},
        {"sku": "F", "title": "a\0b"},
        b"[" * 50 + b"]" * 50,
        {"sku": "G", "delete": True, "title": "x"},
        {"sku": "A", "delete": True},
    )
    changes = [each["change"] for each in results]
    assert changes == [
        "added", "updated", "unchanged", "deleted", "unchanged", "refused", "refused", "refused",
        "refused", "refused", "added", "refused", "refused", "refused", "refused", "refused",
    ]  # fmt: skip
    assert [each["line"] for each in results] == list(range(1, 17))
    reasons = {each["line"]: each["reason"] or "" for each in results}
    for line, reason in {
        6: "JSON", 7: "sku: Field required", 8: "already in line 1", 9: "nonsense",
        10: "none of its pictures", 12: "year", 13: "cannot be stored", 14: "nested",
        15: "no other fields", 16: "already in line 1",
    }.items():  # fmt: skip
        assert reason in reasons[line], reasons[line]
    assert [len(each["pictures"]) for each in results][9:11] == [1, 1]
    assert client.get("/v1/products/A").status == 200
    read = client.get("/v1/products/P0000").json()
    assert (read["colour"], read["brand"]) == ("red", "Kestrel")  # what is not given stays


def test_attributes_of_a_batch_are_merged_and_null_removes_one(client: ApiClient) -> None:
    put(client, "A", {"attributes": {"size": 3, "material": "wool"}})
    batch(client, {"sku": "A", "attributes": {"size": None, "new": True}})
    assert client.get("/v1/products/A").json()["attributes"] == {"material": "wool", "new": True}


def test_a_batch_can_be_undone(client: ApiClient, app: App) -> None:
    batch(client, {"sku": "A", "title": "Lamp"}, {"sku": "P0000", "delete": True})
    [run] = app.catalog.undoable_runs(1)
    assert run.source == uploads.SOURCE
    app.catalog.undo(run.id)
    assert client.get("/v1/products/A").status == 404
    assert client.get("/v1/products/P0000").status == 200


def test_rows_before_an_error_are_written_and_the_others_say_why_not(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = CatalogService.write, []

    def fail_later(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise DatabaseUnavailable("host db.internal is gone")
        return write(*arguments)

    monkeypatch.setattr(uploads, "GROUP_ROWS", 2)
    monkeypatch.setattr(CatalogService, "write", fail_later)
    results = batch(client, *({"sku": f"N{n}"} for n in range(5)))
    assert [each["change"] for each in results] == ["added", "added"] + ["refused"] * 3
    assert "not written: PostgreSQL cannot be reached" in results[-1]["reason"]
    assert "db.internal" not in results[-1]["reason"]
    monkeypatch.undo()
    again = batch(client, *({"sku": f"N{n}"} for n in range(5)))
    assert [each["change"] for each in again] == ["unchanged"] * 2 + ["added"] * 3


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        ({"price": "12"}, "price"),
        ({"price": -1}, "price"),
        ({"brand": "x" * 501}, "the brand is longer than 500"),
        ({"title": "a\0"}, "cannot be stored"),
        ({"pictures": [{"url": "http://127.0.0.1/x.png"}]}, "none of its pictures can be read"),
        ({"pictures": [{}]}, "give either base64 or url"),
        ({"unknown": 1}, "unknown"),
        ([], "body"),
    ],
)
def test_a_wrong_product_is_refused_and_nothing_written(
    client: ApiClient, document: object, detail: str
) -> None:
    response = put(client, "NEW", document)
    assert response.status == 422 and detail in response.json()["detail"]
    assert client.get("/v1/products/NEW").status == 404


def test_empty_and_wrong_batches_are_refused(client: ApiClient) -> None:
    assert client.send("POST", "/v1/products:batch", b"\n\n", ROWS).status == 422
    text = {"Content-Type": "text/plain"}
    assert client.send("POST", "/v1/products:batch", b'{"sku": "A"}', text).status == 415


def test_facets_count_what_passes_and_what_is_found(client: ApiClient, app: App) -> None:
    put(client, "W", {"brand": "Wren", "year": 2020, "pictures": [picture(40)]})
    counted = client.get("/v1/facets?filter=brand%3DKestrel").json()
    brands = {each["value"]: each["products"] for each in counted["values"]["brand"]["counts"]}
    assert (counted["products"], brands) == (3, {"Kestrel": 3, "Wren": 1})
    assert counted["year"] == {"first": None, "last": None}
    everything = client.get("/v1/facets").json()
    assert (everything["products"], everything["year"]["first"]) == (4, 2020)
    found = client.get("/v1/facets?sku=W").json()
    assert found["products"] == 3
    assert client.get("/v1/facets?text=wren").json()["products"] == 1
    assert client.get("/v1/facets?nonsense=1").status == 422


def test_facets_say_how_the_products_that_they_count_were_found(
    client: ApiClient, app: App
) -> None:
    told = {
        "?filter=brand%3DKestrel": (None, "exact"), "": (None, "exact"),
        "?sku=P0001": ("colours", app.search.search(Query(sku="P0001")).plan.path),
        "?text=kestrel": ("colours", "words"),
    }  # fmt: skip
    for asked, expected in told.items():
        answer = client.get(f"/v1/facets{asked}").json()
        FacetAnswer.model_validate(answer)
        assert (answer["model"], answer["path"]) == expected, asked
        assert answer["reason"] and answer["query_id"]
