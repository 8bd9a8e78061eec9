"""Models of 768 and 1,024 dimensions go through every command, as the one of 512 does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from app.bootstrap import App
from app.cli import cli
from app.config import Settings
from app.db.queries import pgvector_index
from app.types import Query
from support.analysts import login
from support.colours import photo
from support.small_clip import save_clip_parts

pytestmark = pytest.mark.xdist_group("clip")  # one process imports the libraries of models

PRODUCTS = 60
K = 5
DIMENSIONS = [768, 1024]


def run(*arguments: object) -> Any:
    """The output of a command, parsed where it is JSON."""
    result = CliRunner().invoke(cli, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


def write_source(folder: Path) -> Path:
    """A CSV of products with a photo each, and labelled queries that are the same photos."""
    skus = [f"P{number:02}" for number in range(PRODUCTS)]
    for number, sku in enumerate(skus):
        (folder / f"{sku}.png").write_bytes(photo(number))
    rows = [f"{sku},title {sku},kind {number % 2},{sku}.png" for number, sku in enumerate(skus)]
    source = folder / "products.csv"
    source.write_text("\n".join(["sku,title,category,images", *rows]) + "\n")
    labelled = "\n".join(["query,expected_sku", *(f"{sku}.png,{sku}" for sku in skus)])
    (folder / "queries.csv").write_text(labelled + "\n")
    return source


@pytest.fixture(params=DIMENSIONS)
def dim(
    request: pytest.FixtureRequest,
    new_database: Callable[[str | None], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> int:
    """The dimensions of the model of a new, empty database, which commands use."""
    model = save_clip_parts(tmp_path / "model", dim=request.param)
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", new_database(None))
    monkeypatch.setenv("LOOKALIKE_MODEL", str(model))
    monkeypatch.setenv("LOOKALIKE_OPENVINO", "false")
    return int(request.param)


def test_a_model_goes_through_every_command(
    dim: int,
    new_database: Callable[[str | None], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pgvector_index, "MIN_ROWS", PRODUCTS)
    source = write_source(tmp_path)
    run("init")
    run("ingest", source)
    listed = run("model", "list", "--json")
    assert (listed[0]["dimensions"], listed[0]["embeddings"]) == (dim, PRODUCTS)

    before = found()
    assert before["pgvector"] == before["exact"]
    run("index", "rebuild")
    assert found()["faiss"] == before["exact"]
    assert run("eval", tmp_path / "queries.csv", "--json")["recall_at_1"] == 1
    assert run("calibrate", "--json")[0]["same_photo"]["pairs"] == PRODUCTS
    assert nearest_by_analyst(dim) == [sku for sku, _ in before["exact"]]

    run("backup", tmp_path / "stored")
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", new_database(None))
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "other"))
    run("restore", tmp_path / "stored")
    run("index", "rebuild")
    assert found()["faiss"] == before["exact"]


def found() -> dict[str, list[tuple[str, float]]]:
    """The result of one query by the path that answered, and by exact search and by
    pgvector's index."""
    results: dict[str, list[tuple[str, float]]] = {}
    for exact_rows in (0, 20_000):
        with App(Settings(exact_rows=exact_rows)) as app:
            result = app.search.search(Query(picture=photo(3), k=K))
            matches = [(match.product.sku, round(match.similarity, 6)) for match in result.matches]
            results[result.plan.path] = matches
    return results


def nearest_by_analyst(dim: int) -> list[str]:
    """What an analyst's SQL finds nearest to the same picture."""
    with App() as app, login(app) as url, psycopg.connect(url) as analyst:
        rows = analyst.execute(
            "SELECT m.sku, m.distance FROM analytics.embeddings e,"
            " analytics.search_products(e.embedding::vector, %s) m"
            " WHERE e.sku = 'P03' AND vector_dims(e.embedding::vector) = %s",
            [K, dim],
        ).fetchall()
    return [sku for sku, _ in rows]
