"""Deleted and changed rows never shorten a page while more matches exist, whichever path answers.

Of a catalogue, 95 % are deleted, and those that stay are the farthest from the query: the index
nominates nothing but rows that are gone. An IVF of FAISS, its flat index, pgvector's index and the
exact scan are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from app.bootstrap import App
from app.config import Settings
from app.db.engine import snapshot
from app.index import faiss_index
from app.search.planner import find
from app.search.retrieval import RetrievalRequest, RetrievalResult
from conftest import Fill
from support.colours import choose_colours
from support.fallback import build_pgvector_index
from support.random_catalogue import fill
from support.recall_queries import few_queries
from support.snapshots import differences, read

ROWS = 1600
KEPT = 80
K = 50
PATHS = ("flat", "ivf", "pgvector", "exact")

QUERY: NDArray[np.float32] = (np.ones(49) / 7).astype(np.float16).astype(np.float32)


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fill_and_index(app: App, rows: int) -> None:
    fill(app, rows)
    build_pgvector_index(app)


def fill_and_build(app: App, rows: int, path: str) -> None:
    fill_and_index(app, rows)
    with pytest.MonkeyPatch.context() as patch:
        few_queries(patch)
        if path == "ivf":
            patch.setattr(faiss_index, "FLAT_ROWS", rows // 2)
        assert (app.indexer.rebuild().kind == "flat") is (path == "flat")


CATALOGUE = partial(fill_and_index, rows=ROWS)
CATALOGUES = {path: partial(fill_and_build, rows=ROWS, path=path) for path in ("flat", "ivf")}
"""Of the paths whose build is copied with the catalogue; for the others, CATALOGUE."""


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str], path: str) -> str:
    return filled_database(CATALOGUES.get(path, CATALOGUE))


@pytest.fixture
def filled(path: str, settings: Settings) -> Iterator[App]:
    """A catalogue for which this path answers while nothing has changed."""
    if path == "pgvector":
        settings = settings.model_copy(update={"exact_rows": 10})
    with App(settings, choose=choose_colours) as app:
        expected = {"pgvector": "pgvector", "exact": "exact"}.get(path, "faiss")
        assert search(app, judged=False).path == expected
        yield app


def search(app: App, *, judged: bool = True) -> RetrievalResult:
    """A result; if `judged`, it is compared with the result of numpy."""
    with snapshot(app.engine) as connection:
        rows = read(connection)
        answer = find(
            RetrievalRequest(app.catalog.model(), QUERY, K, connection=connection),
            app.files,
            app.settings,
        )
    assert not judged or differences(rows, QUERY, answer.candidates, K) == [], answer.reason
    return answer


def nearest_first(app: App) -> list[int]:
    with snapshot(app.engine) as connection:
        truth = read(connection).similarities(QUERY)
    return sorted(truth, key=lambda product: (-truth[product], product))


def delete(sql: psycopg.Connection, products: list[int]) -> None:
    """The products and their embeddings; the pictures stay, as a writer may leave them."""
    sql.execute(
        "DELETE FROM embedding WHERE picture_id IN"
        " (SELECT picture_id FROM product_picture WHERE product_id = ANY(%s))",
        [products],
    )
    sql.execute("DELETE FROM product WHERE id = ANY(%s)", [products])


def test_the_farthest_twentieth_still_fills_a_page(
    filled: App, sql: psycopg.Connection, path: str
) -> None:
    delete(sql, nearest_first(filled)[:-KEPT])
    answer = search(filled)
    assert len(answer.candidates.hits) == K
    assert (answer.build and answer.build.id) == (None if path in ("pgvector", "exact") else 1)


def test_a_page_returns_exactly_the_products_left(filled: App, sql: psycopg.Connection) -> None:
    delete(sql, nearest_first(filled)[: -(K - 10)])
    assert len(search(filled).candidates.hits) == K - 10


def test_rows_moved_away_from_the_query_do_not_shorten_the_page(
    filled: App, sql: psycopg.Connection
) -> None:
    """Changed instead of deleted: the delta holds them, all farther than what did not change."""
    near = nearest_first(filled)[:-KEPT]
    away = str((-QUERY).tolist())
    sql.execute(
        "UPDATE embedding SET vec = %s::halfvec WHERE picture_id IN"
        " (SELECT picture_id FROM product_picture WHERE product_id = ANY(%s))",
        [away, near],
    )
    search(filled)


def test_products_unlinked_from_their_pictures_do_not_shorten_the_page(
    filled: App, sql: psycopg.Connection
) -> None:
    """Their embeddings stay: every path finds pictures that no product shows."""
    sql.execute("DELETE FROM product WHERE id = ANY(%s)", [nearest_first(filled)[:-KEPT]])
    search(filled)
