"""The OpenAPI document: complete, and as committed."""

from __future__ import annotations

import json
import re

from app.api.application import endpoints
from app.bootstrap import App
from support.api_client import ApiClient
from support.paths import REPO

COMMITTED = REPO / "docs" / "openapi.json"


def test_the_committed_document_is_the_one_that_is_served(app: App) -> None:
    """`make openapi` writes it anew. A change here is a change for every program that uses it."""
    served = json.dumps(endpoints(app).openapi(), indent=1, ensure_ascii=False) + "\n"
    assert COMMITTED.read_text(encoding="utf-8") == served


def test_every_reference_has_a_target() -> None:
    text = COMMITTED.read_text(encoding="utf-8")
    document = json.loads(text)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names and names <= document["components"]["schemas"].keys()


def test_every_operation_may_answer_with_a_problem() -> None:
    document = json.loads(COMMITTED.read_text(encoding="utf-8"))
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["description"]
            assert "application/problem+json" in operation["responses"]["default"]["content"]


def test_the_reference_shows_every_address_and_loads_nothing_from_elsewhere(
    client: ApiClient,
) -> None:
    page = client.get("/docs")
    text = page.body.decode()
    document = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert all(path in text for path in document["paths"])
    assert "src=" not in text
    assert not re.search(r"(href|url)\W*https?:", text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
