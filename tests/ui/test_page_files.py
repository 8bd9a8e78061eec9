"""The document of the pages: what is added to Streamlit's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from streamlit import config
from streamlit.file_util import get_static_dir
from streamlit.web.server.starlette.starlette_auth_routes import create_auth_routes

from app.cli.serve_page import PAGE
from app.ui.page_files import (
    ELEMENTS,
    FONTS,
    PageFiles,
    accepts_gzip,
    document,
    fonts,
    needed_later,
)

ENCODINGS = {
    "gzip, br": True, "br;q=1.0, GZIP;q=0.5": True, "*": True, "br, *;q=0.1": True,
    "": False, "br": False, "gzip;q=0": False, "gzip; q=0.000, *": False, "*;q=0": False,
    "notgzip": False,
}  # fmt: skip
INDEX = '<html><head><script src="./static/js/index.1.js"></script></head><body><p></body></html>'


def test_gzip_is_sent_to_those_only_who_accept_it() -> None:
    assert {header: accepts_gzip(header) for header in ENCODINGS} == ENCODINGS


def test_the_document_names_what_the_first_elements_import_once_each(tmp_path: Path) -> None:
    code = {
        "Html.1.js": 'import{a}from"./index.1.js";import{b}from"./purify.1.js";import"./x.1.js";',
        "purify.1.js": "import{c}from`./x.1.js`;const late=import('./late.1.js')",
        "x.1.js": "", "late.1.js": "", "index.1.js": "", "Slider.1.js": "",
    }  # fmt: skip
    for name, text in code.items():
        (tmp_path / name).write_text(text)
    names = needed_later(tmp_path, INDEX)
    assert names == ["Html.1.js", "purify.1.js", "x.1.js"]
    text = document(INDEX, names).decode()
    assert [text.count(f'modulepreload" crossorigin href="./static/js/{n}"') for n in names] == [
        1
    ] * 3
    head, _, body = text.partition("<body>")
    assert "vite:preloadError" in head and "<style>" in body


def test_streamlit_has_the_elements_under_these_names() -> None:
    folder = Path(get_static_dir()) / "static"
    names = needed_later(folder / "js", "")
    assert {name.partition(".")[0] for name in names} >= set(ELEMENTS)
    letters = fonts(folder / "media")
    assert {name.partition(".")[0] for name in letters} == set(FONTS)
    for name in letters:
        assert (
            f'as="font" crossorigin href="./static/media/{name}"'
            in document(INDEX, letters=letters).decode()
        )


@pytest.mark.parametrize(
    ("base", "path", "ours"),
    [
        ("", "/", True), ("", "/duplicates", True), ("", "/duplicates/", False),
        ("", "/_stcore", False), ("", "/media/a.html", False), ("", "/_stcore/health", False),
        ("shop", "/shop/", True), ("shop", "/shop/index", True), ("shop", "/shop", False),
        ("shop", "/shopping", False), ("shop", "/index", False),
        ("", "/oauth2callback", False), ("shop", "/shop/oauth2callback", False),
    ],
)  # fmt: skip
def test_the_document_is_sent_for_pages_alone_also_below_a_base_url(
    monkeypatch: pytest.MonkeyPatch, base: str, path: str, ours: bool
) -> None:
    monkeypatch.setattr(config, "get_option", {"server.baseUrlPath": base}.get)
    sent: list[Any] = []
    passed_on: list[str] = []

    async def streamlit(scope: Any, receive: Any, send: Any) -> None:
        passed_on.append(scope["path"])

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "headers": [(b"accept", b"text/html")],
        "app": Starlette(routes=create_auth_routes(base)),
    }  # fmt: skip
    asyncio.run(PageFiles(streamlit)(scope, None, send))  # type: ignore[arg-type]
    assert (bool(sent), bool(passed_on)) == (ours, not ours)


def test_streamlit_finds_our_application_and_reads_options_from_the_environment() -> None:
    program = (
        "from streamlit.web import bootstrap, cli\n"
        "bootstrap.run_asgi_app = lambda *given: print(given[1], given[3]['server_baseUrlPath'])\n"
        f"cli.main(['run', {str(PAGE)!r}], standalone_mode=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True,
        env=os.environ | {"STREAMLIT_SERVER_BASE_URL_PATH": "shop"},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "page_app:streamlit_app shop"


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="has no <body>"):
        document("<html><head></head></html>")
