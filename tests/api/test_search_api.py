"""Searches over HTTP: the answers are those of the search service, to the digit."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api.answers import BatchAnswer, SearchAnswer
from app.bootstrap import App
from app.search.filters import parse
from app.types import Query, SearchResult
from support.api_client import ApiClient
from support.colours import photo
from support.shop import sha, vectors

SEED = 7
"""A photo of the catalogue that queries are made with."""


def facts(result: SearchResult) -> dict[str, Any]:
    """What a result says, in the form of an answer."""
    return {
        "matches": [
            (each.product.sku, each.similarity, each.means, [f.product.sku for f in each.folded])
            for each in result.matches
        ],
        "dropped": [asdict(drop) for drop in result.dropped],
        "plan": (
            result.plan.path, result.plan.reason, result.plan.reason_code, result.plan.model,
            result.plan.build, result.plan.shortfall,
        ),
        "sure": (result.confidence, result.close),
    }  # fmt: skip


def facts_of_answer(answer: dict[str, Any]) -> dict[str, Any]:
    SearchAnswer.model_validate(answer)
    return {
        "matches": [
            (each["sku"], each["similarity"], each["means"], [f["sku"] for f in each["folded"]])
            for each in answer["matches"]
        ],
        "dropped": answer["dropped"],
        "plan": (
            answer["path"], answer["reason"], answer["reason_code"], answer["model"],
            answer["plan"]["build"], answer["plan"]["shortfall"],
        ),
        "sure": (answer["confidence"], answer["close"]),
    }  # fmt: skip


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "k": st.integers(1, 70),
        "fold": st.booleans(),
        "filters": st.sampled_from(
            [[], ["brand=Kestrel"], ["year>=2019"], ["brand=Wren", "brand=Kestrel"], ["size=1"]]
        ),
        "near_query": st.floats(0, 1),
        "near_match": st.floats(0, 1),
        "min_similarity": st.floats(-1, 1),
    },
)


@given(
    kind=st.sampled_from(["sku", "text", "vector", "packed", "photo", "photo_id", "both"]),
    more=OPTIONS,
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_kind_of_query_is_answered_as_by_the_service(
    client: ApiClient, shared_app: App, results: list[SearchResult], stored_photo: str, kind: str,
    more: dict[str, Any],
) -> None:  # fmt: skip
    if kind == "text":  # without a picture there is nothing to be near to
        more = {name: more[name] for name in more.keys() & {"k", "fold", "filters"}}
    vector = vectors(shared_app, [SEED])[0]
    asked: dict[str, Any] = {
        "sku": {"sku": "P0003"},
        "text": {"text": "lamp"},
        "vector": {"vector": vector.tolist(), "model": "colours"},
        "packed": {"vector": packed(vector), "model": "colours"},
        "photo": {},
        "photo_id": {"photo_id": stored_photo},
        "both": {"photo_id": stored_photo, "text": "mug", "text_weight": 0.0},
    }[kind]
    query = {
        "sku": Query(sku="P0003"),
        "text": Query(words="lamp"),
        "vector": Query(vector=vector, model_id=shared_app.catalog.model().id),
        "packed": Query(vector=vector, model_id=shared_app.catalog.model().id),
        "photo": Query(picture=photo(SEED)),
        "photo_id": Query(picture=photo(SEED)),
        "both": Query(picture=photo(SEED), words="mug", words_weight=0.0),
    }[kind]
    fields = {"fold": True} | more
    fields["filters"] = parse(fields.get("filters", []))
    expected = facts(shared_app.search.search(replace(query, **fields)))
    results.clear()
    if kind == "photo":
        files, texts = {"file": photo(SEED)}, {"query": json.dumps(more)}
        response = client.post_form("/v1/search/photo", files, texts)
    else:
        response = client.post("/v1/search", asked | more)
    assert response.status == 200, response.body
    answer = facts_of_answer(response.json())
    assert answer == facts(results[-1])
    # Which path answers may depend on what was searched before; what it finds does not.
    del answer["plan"], expected["plan"]
    assert answer == expected


def packed(numbers: Any) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def test_a_vector_in_base64_may_have_16_bits_a_number(client: ApiClient, shared_app: App) -> None:
    half = vectors(shared_app, [SEED])[0].astype("<f2")
    asked = {"model": "colours", "k": 5}
    listed = client.post("/v1/search", asked | {"vector": half.astype(float).tolist()}).json()
    short = asked | {"vector": packed(half), "vector_type": "float16"}
    assert facts_of_answer(client.post("/v1/search", short).json()) == facts_of_answer(listed)


def test_a_vector_that_is_not_its_bytes_is_refused(client: ApiClient) -> None:
    infinite = packed(np.array([1, np.inf], "<f4"))
    for wrong in ("", "AAA", "AAAAA", "?" * 8, "AAAA", infinite, packed(np.ones(4001, "<f4"))):
        refused = client.post("/v1/search", {"model": "colours", "vector": wrong})
        assert refused.status == 422, wrong
        assert refused.json()["type"].endswith(("invalid-request", "bad-input")), wrong


@pytest.fixture(scope="module")
def results(shared_app: App) -> Iterator[list[SearchResult]]:
    """What the service of the server has returned."""
    returned: list[SearchResult] = []
    search = shared_app.search.search

    def recording(query: Query, *more: Any) -> SearchResult:
        returned.append(search(query, *more))
        return returned[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_app.search, "search", recording)
        yield returned


@pytest.fixture(scope="module")
def stored_photo(client: ApiClient) -> str:
    response = client.post_form("/v1/photos", {"file": photo(SEED)})
    assert response.status == 201
    return str(response.json()["photo_id"])


def test_what_was_made_of_the_words_is_in_the_plan(client: ApiClient) -> None:
    search = {"text": "title -lampp ohne rot 7", "text_language": "de", "text_by": "catalogue"}
    plan = client.post("/v1/search", search).json()["plan"]
    assert plan["excluded"] == ["lampp", "rot", "red"]
    other = client.post("/v1/search", {"text": "title"}).json()
    assert other["plan"]["excluded"] == []


def test_a_batch_has_an_answer_or_a_problem_for_each_query_in_order(client: ApiClient) -> None:
    queries = [{"sku": f"P{n:04}", "k": 2} for n in (5, 99, 6, 7)]
    response = client.post("/v1/search/batch", {"queries": queries})
    answers = BatchAnswer.model_validate(response.json()) and response.json()["answers"]
    assert response.status == 200 and len(answers) == 4
    assert answers[1]["type"] == "urn:lookalike:problem:unknown-product"
    for query, answer in zip(queries, answers, strict=True):
        if query["sku"] != "P0099":
            alone = client.post("/v1/search", query).json()
            assert facts_of_answer(answer) == facts_of_answer(alone)


def test_a_batch_has_100_queries_at_most(client: ApiClient) -> None:
    queries = [{"sku": "P0001", "k": 1}] * 101
    assert client.post("/v1/search/batch", {"queries": queries}).status == 422


def test_pages_neither_repeat_nor_leave_out(client: ApiClient, shared_app: App) -> None:
    asked: dict[str, Any] = {"sku": "P0003", "k": 17}
    shown: list[str] = []
    for _ in range(4):
        answer = client.post("/v1/search", asked).json()
        shown += [match["sku"] for match in answer["matches"]]
        if answer["cursor"] is None:
            break
        asked["cursor"] = answer["cursor"]
    assert answer["cursor"] is None
    all_at_once = shared_app.search.search(Query(sku="P0003", k=60, fold=True))
    assert shown == [match.product.sku for match in all_at_once.matches]


def test_pages_of_a_photo_go_on_with_the_same_photo_only(client: ApiClient) -> None:
    first = client.post_form("/v1/search/photo", {"file": photo(SEED)}, {"query": '{"k": 5}'})
    cursor = first.json()["cursor"]
    query = {"query": json.dumps({"k": 5, "cursor": cursor})}
    second = client.post_form("/v1/search/photo", {"file": photo(SEED)}, query)
    skus = [[match["sku"] for match in each.json()["matches"]] for each in (first, second)]
    assert len({*skus[0], *skus[1]}) == 10
    other = client.post_form("/v1/search/photo", {"file": photo(SEED + 1)}, query)
    assert (other.status, other.json()["type"]) == (422, "urn:lookalike:problem:bad-cursor")


def test_the_list_of_similar_products_has_an_etag_of_what_it_says(client: ApiClient) -> None:
    path = "/v1/products/P0003/similar?k=4&filter=brand%3DKestrel"
    first, again = client.get(path), client.get(path)
    etag = first.headers["etag"]
    assert first.status == 200 and etag == again.headers["etag"] and etag.startswith('W/"')
    assert first.headers["cache-control"] == "private, max-age=60"
    assert first.json()["query_id"] != again.json()["query_id"]
    assert {match["brand"] for match in first.json()["matches"]} == {"Kestrel"}
    kept = client.get(path, {"If-None-Match": f'"other", {etag}'})
    assert (kept.status, kept.body, kept.headers["etag"]) == (304, b"", etag)
    assert client.get(path.replace("k=4", "k=5"), {"If-None-Match": etag}).status == 200


def test_a_thumbnail_never_changes_and_needs_no_key(client: ApiClient) -> None:
    answer = client.post("/v1/search", {"sku": "P0003", "k": 1}).json()
    [match] = answer["matches"]
    assert match["thumbnail"] == f"/v1/pictures/{sha(int(match['sku'][1:])).hex()}/thumbnail"
    response = client.get(match["thumbnail"], {"Origin": "https://anywhere.example"})
    assert response.status == 200 and response.body[:3] == b"\xff\xd8\xff"
    assert response.headers["content-type"] == "image/jpeg"
    assert "immutable" in response.headers["cache-control"]
    unknown = client.get(f"/v1/pictures/{'0' * 64}/thumbnail")
    assert (unknown.status, unknown.json()["type"]) == (
        404,
        "urn:lookalike:problem:unknown-picture",
    )
