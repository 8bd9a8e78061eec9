"""The search page without a browser over forty products."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.images.sandbox import PictureSandbox
from app.ui import shared
from conftest import Fill
from support.search_page import (
    Visit,
)
from support.shop import add
from support.sources import WatchedEncoder


def script() -> None:
    from app.ui.views import search as search_view

    search_view.show()


@pytest.fixture
def encoder() -> WatchedEncoder:
    return WatchedEncoder()


@pytest.fixture
def visit(
    settings: Settings,
    encoder: WatchedEncoder,
    sandbox: PictureSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Visit]:
    """Opens the page with URL parameters, on this test's database, with an encoder that counts."""
    own = settings.model_copy(update={"page_metrics_port": 0})
    made = App(own, choose=lambda model, **_: EncoderChoice(encoder, "watched"))
    vars(made)["sandbox"] = sandbox
    monkeypatch.setattr(shared, "App", lambda: made)
    st.cache_resource.clear()
    st.cache_data.clear()

    def visit(**address: str | list[str]) -> AppTest:
        page = AppTest.from_function(script, default_timeout=300)
        page.query_params.update(address)
        return page.run()

    yield visit
    del vars(made)["sandbox"]  # later tests use it
    made.close()
    st.cache_resource.clear()


def forty_products(app: App) -> None:
    """Products of two brands and five years, with an index."""
    add(app, {f"P{n:04}": [n] for n in range(40) if n % 4}, brand="Kestrel")
    add(app, {f"P{n:04}": [n] for n in range(0, 40, 4)}, brand="Alder")
    with app.engine.begin() as connection:
        connection.exec_driver_sql(
            """UPDATE product SET year = 2015 + mod(n, 5), price = 10 + n
            FROM (SELECT id, substr(sku, 2)::integer AS n FROM product) AS numbered
            WHERE numbered.id = product.id"""
        )
    app.indexer.rebuild()


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str]) -> str:
    return filled_database(forty_products)


@pytest.fixture
def goods(app: App) -> App:
    """The services over the forty products."""
    return app
