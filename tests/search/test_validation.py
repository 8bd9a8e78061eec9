"""Queries that are refused, and results with fewer products than were asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.errors import BadInput, ModelMismatch, NoModel, NoWords, UnknownProduct
from app.types import Query
from support.colours import ColourEncoder, choose_colours, photo
from support.search_checks import ask
from support.shop import add, numbered, vectors

# k, or the reason


def test_fewer_than_k_are_returned_with_the_reason(app: App) -> None:
    add(app, numbered(3))
    for _ in range(2):
        result = ask(app, k=5)
        assert len(result.matches) == 3
        assert result.plan.shortfall == (
            "Only 3 products have a picture with an embedding under the active model."
        )
        app.indexer.rebuild()


def test_an_empty_catalogue_is_not_an_error(app: App) -> None:
    app.indexer.rebuild()
    result = ask(app)
    assert result.matches == ()
    assert result.plan.shortfall


# Questions that make no sense


@pytest.mark.parametrize("k", [0, -1, 1001])
def test_k_out_of_range_is_refused(app: App, k: int) -> None:
    with pytest.raises(BadInput, match="1 to 1000"):
        ask(app, k=k)


def test_an_empty_query_is_refused(app: App) -> None:
    with pytest.raises(BadInput, match="at least one"):
        app.search.search(Query())
    with pytest.raises(BadInput, match="not both"):
        app.search.search(Query(sku="P0001", picture=photo(1)))
    with pytest.raises(BadInput, match="alone"):
        app.search.search(Query(vector=np.ones(49, np.float32), model_id=1, words="red"))


def test_an_unknown_sku_is_refused_with_similar_ones(app: App) -> None:
    add(app, numbered(3))
    with pytest.raises(UnknownProduct, match="P0000"):
        app.search.search(Query(sku="P000X"))


def test_words_need_a_model_that_reads_them(app: App) -> None:
    with pytest.raises(NoWords, match="colours reads pictures only"):
        app.search.search(Query(words="a red shoe", words_by="model"))


def test_a_vector_of_another_model_is_refused(app: App) -> None:
    add(app, numbered(3))
    vector = vectors(app, [1])[0]
    with pytest.raises(ModelMismatch):
        app.search.search(Query(vector=vector, model_id=99))


@pytest.mark.parametrize("bad", [np.zeros(49), np.full(49, np.nan), np.ones(3)])
def test_a_zero_or_infinite_vector_is_refused(app: App, bad: np.ndarray) -> None:
    vector = bad.astype(np.float32)
    with pytest.raises(BadInput):
        app.search.search(Query(vector=vector, model_id=app.catalog.model().id))


def test_without_a_recorded_model_nothing_is_searched(empty_url: str, tmp_path: Path) -> None:
    from app.operations.migrate import migrate

    with App(Settings(home=tmp_path, database_url=empty_url), choose=choose_colours) as app:
        migrate(app.engine)
        with pytest.raises(NoModel, match="lookalike init"):
            app.search.search(Query(sku="X"))


def test_a_model_changed_by_another_process_is_noticed(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(3))
    ask(app)
    other = ColourEncoder("others")
    sql.execute("SELECT register_model(%s, '1', 49, %s)", [other.name, other.fingerprint])
    sql.execute("UPDATE model SET active = false WHERE active")
    sql.execute("UPDATE model SET active = true WHERE name = 'others'")
    plan = ask(app).plan
    assert plan.model == "others" and "No products have a picture" in (plan.shortfall or "")
