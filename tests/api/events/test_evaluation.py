"""Quality is measured by what people clicked and bought."""

from __future__ import annotations

import pytest

from app.bootstrap import App
from app.errors import BadSource
from app.evaluation import event_queries
from app.evaluation.labelled_queries import evaluate
from app.types import Filters, Query
from support.colours import photo
from support.event_shop import Shop, event, post


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
