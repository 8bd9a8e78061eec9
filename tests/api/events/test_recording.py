"""What is recorded of searches, and the views of searches and events."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from support.analysts import login
from support.colours import photo
from support.event_shop import Shop, event, post


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
