"""The document and the static files of the pages: with our head, and compressed.

Streamlit sends its files as they are, for a proxy to compress, and adds a style sheet of a page
only when the script runs, so that what is drawn before it jumps.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import config
from streamlit.file_util import get_static_dir

from app.config import Settings
from app.ui.css import STYLE, upload_label
from app.ui.languages import ENGLISH, N_, catalogue, languages, page_language

SCRIPT = Path(__file__).with_name("page_head.js")

TEXTS = {
    "again": N_("A file of this page could not be loaded, so the page was loaded again."),
    "still": N_(
        "A file of this page cannot be loaded. Check the connection, then load the page again."
    ),
    "reload": N_("Load again"),
    "close": N_("Close"),
    "help": N_("Help for {name}"),
    "notFound": N_("Page not found"),
    "noPage": N_("There is no page at this address. This is the search."),
}
"""What the script says, by its names."""

UPLOAD = N_("Upload")
"""The label of Streamlit's upload button, which has no setting for it."""

MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
"""Files that are compressed, by suffix."""

LEAST_BYTES = 500
"""Smaller files are sent as they are."""

ELEMENTS = ("BidiComponent", "Button", "FileUploader", "Html", "Selectbox", "TextInput")
"""Streamlit's names of what the search page draws at first."""

FONTS = ("SourceSansVF-Upright", "MaterialSymbols-Rounded")
"""Streamlit's names of the fonts of text and icons."""

IMPORTS = re.compile(r"""(?:from|import)["'`]\./([\w.-]+\.js)["'`]""")
"""Static imports of a module of its folder."""

NOT_PAGES = ("_stcore", "component", "media", "static", "app", "auth")
"""First parts of addresses that are no pages, by themselves."""

YEAR_S = 365 * 24 * 3600


class PageFiles:
    """ASGI middleware that sends the document of the pages and compressed static files.

    All else goes on to Streamlit. Static files are compressed once each, when they are first asked
    for.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        folder = Path(get_static_dir())
        index = (folder / "index.html").read_text(encoding="utf-8")
        modules = needed_later(folder / "static" / "js", index)
        letters = fonts(folder / "static" / "media")
        self._documents = {name: document(index, modules, name, letters) for name in languages()}
        self._packed = {
            name: gzip.compress(content, mtime=0) for name, content in self._documents.items()
        }
        self._setting = Settings().page_language
        self._files = _compressible(folder / "static")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        response = await self._response(scope)
        await (response or self._app)(scope, receive, send)

    async def _response(self, scope: Scope) -> Response | None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return None
        path = _path(scope)
        if path is None:
            return None
        headers = Headers(scope=scope)
        packs = accepts_gzip(headers.get("accept-encoding", ""))
        file = self._files.get(path.rpartition("/static/")[2]) if "/static/" in path else None
        if file is not None and packs:
            return _packed_file(await asyncio.to_thread(_compressed, file), file.suffix)
        if _is_page(path, headers) and not _has_route(scope):
            return self._page(scope, headers, packs=packs)
        return None

    def _page(self, scope: Scope, headers: Headers, *, packs: bool) -> Response:
        asked, header = (
            QueryParams(scope.get("query_string", b"")),
            headers.get("accept-language", ""),
        )
        cookies = cookie_parser(headers.get("cookie", ""))
        language = page_language(header, asked, cookies, self._setting)
        content = (self._packed if packs else self._documents)[language]
        response = Response(content, media_type="text/html")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Content-Language"] = language
        response = _with_encoding(response, packed=packs)
        response.headers["Vary"] = "Accept-Encoding, Accept-Language, Cookie"
        return response


def accepts_gzip(header: str) -> bool:
    """Whether a client that sends this Accept-Encoding reads gzip: named or meant by `*`, and not
    with a weight of 0 (RFC 9110, section 12.5.3)."""
    weights = {}
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        weights[name.strip()] = not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return weights.get("gzip", weights.get("*", False))


def document(
    index: str, modules: Sequence[str] = (), language: str = ENGLISH, letters: Sequence[str] = ()
) -> bytes:
    """Streamlit's document (HTML) in a language, with our script in its head, and our style sheet
    in its body, where it comes after the rules that Streamlit adds to the head later.

    `modules` are names of files that the browser should load beside those of the document, and
    `letters` those of fonts.
    """
    links = [
        f'<link rel="modulepreload" crossorigin href="./static/js/{name}">' for name in modules
    ] + [
        f'<link rel="preload" as="font" crossorigin href="./static/media/{name}">'
        for name in letters
    ]
    index = _inserted(index, "\n".join(links), after="<head>")
    translated = catalogue(language).gettext
    texts = json.dumps({name: translated(text) for name, text in TEXTS.items()})
    script = f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>".replace("TEXTS", texts)
    labels = [upload_label(catalogue(name).gettext(UPLOAD), name) for name in languages()[1:]]
    style = f"<style>{STYLE}{''.join(labels)}</style>"
    index = index.replace('<html lang="en">', f'<html lang="{language}">')
    return _inserted(_inserted(index, script, after="<head>"), style, after="<body>").encode()


def fonts(folder: Path) -> list[str]:
    """The files of the fonts in a folder of Streamlit's that every page shows: a browser asks for
    them only when it draws text, and until it has that of the icons it draws their names."""
    return sorted(file.name for name in FONTS for file in folder.glob(f"{name}.*.woff2"))


def needed_later(folder: Path, index: str) -> list[str]:
    """The files of Streamlit's code in a folder that draw ELEMENTS, with what they import, and that
    its document does not name: the browser would ask for them one after the other, when the first
    element of each kind arrives."""
    waiting = [file for name in ELEMENTS for file in folder.glob(f"{name}.*.js")]
    found: dict[str, None] = {}
    while waiting:
        file = waiting.pop()
        if file.name in found or f"/{file.name}" in index or not file.is_file():
            continue
        found[file.name] = None
        waiting += [folder / name for name in IMPORTS.findall(file.read_text(encoding="utf-8"))]
    return sorted(found)


def _inserted(text: str, addition: str, *, after: str) -> str:
    before, found, rest = text.partition(after)
    if not found:
        raise ValueError(f"Streamlit's index.html has no {after}.")
    return f"{before}{found}\n{addition}\n{rest}"


def _path(scope: Scope) -> str | None:
    """The path below the base URL of the pages; None for one that is not below it."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    base = str(config.get_option("server.baseUrlPath")).strip("/")
    if not base:
        return path
    return path.removeprefix(f"/{base}") if path.startswith(f"/{base}/") else None


def _is_page(path: str, headers: Headers) -> bool:
    """Whether a browser asks for a page: one address part that is neither a file nor reserved."""
    name = path.removeprefix("/")
    return (
        "text/html" in headers.get("accept", "")
        and "/" not in name
        and "." not in name
        and name not in NOT_PAGES
    )


def _has_route(scope: Scope) -> bool:
    """Whether Streamlit answers an address by more than its document: the provider of a sign-in
    sends browsers to `/oauth2callback`."""
    routes = (route for route in scope["app"].routes if isinstance(route, Route))
    return any(route.matches(scope)[0] is not Match.NONE for route in routes)


def _compressible(folder: Path) -> Mapping[str, Path]:
    """The files of a folder that are worth compressing, by their path in it."""
    return {
        file.relative_to(folder).as_posix(): file
        for file in folder.rglob("*")
        if file.suffix in MEDIA_TYPES and file.stat().st_size >= LEAST_BYTES
    }


@cache
def _compressed(file: Path) -> bytes:
    return gzip.compress(file.read_bytes(), mtime=0)


def _packed_file(content: bytes, suffix: str) -> Response:
    response = Response(content, headers={"Content-Type": MEDIA_TYPES[suffix]})
    # Streamlit's names hold a hash of the content.
    response.headers["Cache-Control"] = f"public, immutable, max-age={YEAR_S}"
    return _with_encoding(response, packed=True)


def _with_encoding(response: Response, *, packed: bool) -> Response:
    response.headers["Vary"] = "Accept-Encoding"
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    return response
