"""The recipes for analysts: an analyst may run each, and it returns rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psycopg
import pytest

from app.bootstrap import App
from support.analysts import catalogue, login
from support.paths import REPO

PAGE = REPO / "docs" / "analysts.md"
FENCE = re.compile(r"^<!-- run.*? -->\n```(sql|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in FENCE.finditer(PAGE.read_text(encoding="utf-8"))]
QUERIES = [
    statement
    for language, block in BLOCKS
    if language == "sql" and not block.startswith(("CREATE", "REVOKE"))
    for statement in block.strip().rstrip(";").split(";")
]
EMPTY = (
    "NOT EXISTS",
    "analytics.loads",
    "analytics.rejects",
    "analytics.clicks",
    "analytics.click_through",
    "analytics.searches_without_a_click",
    "duplicate_groups",
    "similar_listings",
    "analytics.picture_colours",
)
"""Parts of the queries that return no rows in the catalogue of these tests."""


@pytest.fixture(scope="module")
def shop(server_home: Path, template: str) -> Iterator[App]:
    with catalogue(server_home, template) as app:
        app.indexer.rebuild()
        yield app


@pytest.fixture(scope="module")
def url(shop: App) -> Iterator[str]:
    with login(shop) as url:
        yield url


@pytest.mark.parametrize("query", QUERIES, ids=lambda sql: " ".join(sql.split())[:60])
def test_an_analyst_may_run_the_query_and_gets_rows(url: str, query: str) -> None:
    with psycopg.connect(url) as analyst:
        rows = analyst.execute(query).fetchall()  # type: ignore[call-overload]
    assert rows or any(name in query for name in EMPTY)


def test_the_page_contains_the_recipes() -> None:
    assert len(QUERIES) > 15


def test_the_export_holds_every_product_and_every_embedding(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [program] = [block for language, block in BLOCKS if language == "python"]
    monkeypatch.setenv("ANALYST_URL", url)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, str(PAGE), "exec"), {})
    assert len(pd.read_parquet("products.parquet")) == 90
    embeddings = pd.read_parquet("embeddings.parquet")
    assert len(embeddings) == 150
    assert {len(vector) for vector in embeddings["embedding"]} == {49}


def test_the_login_that_the_page_creates_has_limits(shop: App) -> None:
    [create_role] = [block for _, block in BLOCKS if block.startswith("CREATE ROLE ada")]
    url = shop.settings.database_url or ""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(create_role)  # type: ignore[call-overload]
        try:
            with psycopg.connect(url.replace("postgres@", "ada@")) as ada:
                assert ada.execute("SHOW statement_timeout").fetchone() == ("1min",)
                assert ada.execute("SHOW transaction_read_only").fetchone() == ("on",)
                assert ada.execute("SELECT count(*) FROM analytics.products").fetchone() == (90,)
        finally:
            owner.execute("DROP ROLE ada")


def test_functions_that_the_page_revokes_are_refused(shop: App, url: str) -> None:
    [closing] = [block for _, block in BLOCKS if block.startswith("REVOKE")]
    calls = ("lo_create(0)", "lo_creat(-1)", "lo_from_bytea(0, 'x')",
             "pg_logical_emit_message(false, 'x', 'x')")  # fmt: skip
    with psycopg.connect(shop.settings.database_url or "", autocommit=True) as owner:
        owner.execute(closing)  # type: ignore[call-overload]
    with psycopg.connect(url, autocommit=True) as analyst:
        analyst.execute("SET default_transaction_read_only = off")
        for call in calls:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                analyst.execute(f"SELECT {call}")  # type: ignore[call-overload]
