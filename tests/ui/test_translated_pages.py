"""Nothing on a page that is not translated, and numbers as the language writes them."""

from __future__ import annotations

import gettext
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psycopg
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Block, Node

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.images.sandbox import PictureSandbox
from app.types import Product
from app.ui import shared, translation
from app.ui.views.catalogue import cached_overview
from conftest import Fill
from support.colours import photo
from support.shop import add_products
from support.sources import WatchedEncoder, ingest, write_csv, write_photos


class Pseudo(gettext.NullTranslations):
    """Writes letters outside of places as other ones, so that what is not translated shows."""

    def gettext(self, message: str) -> str:
        parts = re.split(r"(\{\w+\})", message)
        parts[::2] = [re.sub("[A-Za-z]", _other, part) for part in parts[::2]]
        return "".join(parts)

    def ngettext(self, one: str, many: str, count: int) -> str:
        return self.gettext(one if count == 1 else many)


def _other(letter: re.Match[str]) -> str:
    return chr(ord(letter.group()) - 0x41 + 0xFF21)


TEXT_FIELDS = {"label", "help", "placeholder", "body", "title", "options", "content", "text"}
"""Fields of Streamlit's messages that are shown."""


NAMES = re.compile(
    r"\S+://\S+|\S+\.(png|csv)|\b(SKU|MB|kB|PDF|PNG|CSV|PostgreSQL|pgvector|OpenVINO|torch|faiss|exact|"
    r"words|colours|flat|watched|Flat|ColourEncoder|localhost|postgresql|Ada|min)\b|:material/\w+:"
    r"|:small"
)
"""What is the same in each language: names and units."""


class Shown(HTMLParser):
    """The text of HTML, with attributes that are shown or read out."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._skipped = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._skipped = tag in ("style", "script")
        self.texts += [value for name, value in attrs if name in ("alt", "title", "aria-label")]

    def handle_endtag(self, tag: str) -> None:
        self._skipped = False

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.texts.append(data)


def texts(node: Node) -> Iterator[str]:
    """What a part of the page shows."""
    if isinstance(node, Block):
        for child in node.children.values():
            yield from texts(child)
    proto = getattr(node, "proto", None)
    if proto is None:
        return
    kind = proto.DESCRIPTOR.name
    if kind in ("Html", "Markdown"):
        parser = Shown()
        parser.feed(proto.body)
        yield from parser.texts
    elif kind == "VegaLiteChart":
        spec = json.dumps(json.loads(proto.spec), ensure_ascii=False)
        yield from re.findall(r'"title": "(.*?)"', spec)
    elif kind == "Dataframe" or kind == "ArrowData":
        yield from map(str, node.value.columns)  # type: ignore[attr-defined]
    else:
        yield from _fields(proto)


def _fields(proto: Any) -> Iterator[str]:
    for field, value in proto.ListFields():
        each = list(value) if field.is_repeated else [value]
        if field.message_type is not None:
            for inner in each:
                if hasattr(inner, "ListFields"):
                    yield from _fields(inner)
        elif field.name in TEXT_FIELDS:
            yield from (text for text in each if isinstance(text, str))


def english(page: AppTest) -> list[str]:
    """What the page shows in the letters of English."""
    assert not page.exception
    found = [NAMES.sub("", text) for text in texts(page._tree)]
    return sorted({text for text in found if re.search("[A-Za-z]{2}", text)})


def odd_products(app: App) -> None:
    """Products whose own texts have no English letters, with an index and duplicates."""
    shown = [
        (Product(f"{n}", title=f"Ω{n // 2}", brand="Λ", category="Γ", colour="Δ", year=2000 + n % 2,
                 price=Decimal(n), currency="EUR", attributes={"Ξ": f"Ψ{n % 3}"}), [n // 2])
        for n in range(40)
    ]  # fmt: skip
    add_products(app, shown)
    app.indexer.rebuild()


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str]) -> str:
    return filled_database(odd_products)


@pytest.fixture
def visit(
    app: App, settings: Settings, sandbox: PictureSandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., AppTest]]:
    """Opens a page in German with parameters."""
    own = settings.model_copy(update={"page_metrics_port": 0})
    made = App(own, choose=lambda model, **_: EncoderChoice(WatchedEncoder(), "watched"))
    vars(made)["sandbox"] = sandbox
    monkeypatch.setattr(shared, "App", lambda: made)
    st.cache_resource.clear()
    st.cache_data.clear()
    cached_overview.clear()  # type: ignore[attr-defined]

    def script(view: str) -> None:
        from importlib import import_module

        import_module(f"app.ui.views.{view}").show()

    def visit(view: str = "search", session: Any = (), **address: str) -> AppTest:
        page = AppTest.from_function(script, default_timeout=300, args=(view,))
        page.query_params.update({"lang": "de"} | address)
        for name, value in dict(session).items():
            page.session_state[name] = value
        return page.run()

    yield visit
    del vars(made)["sandbox"]
    made.close()
    st.cache_resource.clear()


def press(page: AppTest, part: str) -> AppTest:
    return next(each for each in page.button if part in (each.key or "")).click().run()


Visit = Callable[..., AppTest]


def test_no_page_shows_a_text_that_is_not_translated(
    app: App, visit: Visit, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path, [1])
    ingest(app, write_csv(tmp_path / "1.csv", [{"sku": "90", "title": "Ω", "images": "no.png"}]))
    pseudo = Pseudo()
    monkeypatch.setattr(translation, "catalogue", lambda language: pseudo)
    page = visit()
    assert english(page) == []
    page.file_uploader[0].set_value([("7.png", photo(7), "image/png")]).run()
    assert english(press(press(page, "pin-0"), "pin-1")) == []
    assert english(press(page, "details-0")) == []
    assert english(press(page, "pinned")) == []
    assert english(press(page, "share")) == []
    page.file_uploader[0].set_value([("7.png", b"%PDF", "image/png")]).run()
    assert english(page) == []
    assert english(visit(sku="7", year="2000..2001", near="0.1", min="0.2", page="2")) == []
    assert english(visit(text="Ω1", fold="0", sort="newest", price="1..30")) == []
    assert english(visit(text="ΩΩΩ", year="2000", min="7")) == []
    assert english(visit(text="ΩΩΩ", price="30..1")) == []
    for view in ("Pairs to judge", "All groups", "Similar listings"):
        assert english(visit("duplicates", {"duplicates_view": view})) == []
        named = {"duplicates_view": view, "reviewer_name": "Ada"}
        assert english(visit("duplicates", named)) == []
    assert english(visit("catalogue")) == []
    assert english(visit("index")) == []
    monkeypatch.undo()


def test_numbers_and_prices_are_written_as_in_german(visit: Visit) -> None:
    page = visit(sku="7", price="1..30.5")
    shown = " ".join(texts(page._tree))
    assert re.search(r"\d,00\xa0€", shown) and "Ähnlichkeit 0," in shown
    assert "Preis: 1 bis 30,5" in shown.replace("\\", "")
