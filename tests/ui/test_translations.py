"""The languages of the pages: complete catalogues, and nothing on a page that is not translated."""

from __future__ import annotations

import ast
import gettext
import json
import re
import runpy
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
from app.errors import BadInput
from app.images.sandbox import PictureSandbox
from app.types import Product
from app.ui import languages, shared, translation
from app.ui.engine_sentences import RULES, SENTENCES
from app.ui.engine_texts import engine_text
from app.ui.page_files import document
from app.ui.views.catalogue import cached_overview
from conftest import Fill
from support.colours import photo
from support.shop import add_products
from support.sources import WatchedEncoder, ingest, write_csv, write_photos

REPO = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(REPO / "release/translations.py"))
FILES = sorted(languages.LOCALES.glob("*/LC_MESSAGES/lookalike.po"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.parent.name)
def test_each_catalogue_has_every_message_and_is_compiled(file: Path) -> None:
    catalogue = TOOL["read"](file)
    assert sorted(TOOL["faults"](catalogue, TOOL["template"]())) == []
    with file.with_suffix(".mo").open("rb") as opened:
        compiled = gettext.GNUTranslations(opened)
    for message in catalogue:
        if isinstance(message.id, tuple):
            found = [compiled.ngettext(*message.id, count) for count in (1, 2)]
            assert found == [*message.string[:2]]
        elif message.id:
            assert compiled.gettext(message.id) == message.string


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node


def test_every_message_of_the_code_is_extracted() -> None:
    """Tools do not find one in an f-string, nor one that is put together."""
    known = {message.id for message in TOOL["template"]()}
    singular = {id_[0] if isinstance(id_, tuple) else id_ for id_ in known}
    missed = [
        (file.name, call.lineno)
        for file in sorted((REPO / "app/ui").rglob("*.py"))
        for call in calls(ast.parse(file.read_text(encoding="utf-8")))
        if call.func.id in ("_", "N_", "ngettext")  # type: ignore[attr-defined]
        and isinstance(call.args[0], (ast.Constant, ast.JoinedStr))
        and getattr(call.args[0], "value", None) not in singular
    ]
    assert missed == []


def engine_texts() -> Iterator[str]:
    """The texts of the engine as patterns: anything may stand for what is filled in."""
    for room in (REPO / "app").iterdir():
        if room.name == "ui":
            continue
        for file in [room] if room.suffix == ".py" else room.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [getattr(part, "value", None) for part in node.values]
                    yield "".join(re.escape(p) if isinstance(p, str) else ".*" for p in parts)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.escape(" ".join(node.value.split()))


SHOWN = ("bootstrap.py", "catalog", "db", "duplicates", "encoders", "errors.py", "images", "index",
         "search", "secret_files.py", "operations/health.py")  # fmt: skip
"""Rooms and files whose sentences a page may show."""

NOT_SHOWN = {
    "catalog/batch_write.py": "writing, which pages do not do",
    "catalog/fallback_index.py": "upkeep, of the worker and commands",
    "catalog/ingest_run.py": "undo, a command",
    "catalog/undo.py": "undo, a command",
    "db/client_tools.py": "backup and restore",
    "duplicates/report.py": "pairs in a file, of a command",
    "encoders/loading.py: was taken": "said by `lookalike init`",
    "encoders/loading.py: as asked.": "said by `lookalike init`",
    "encoders/loading.py: Pictures are encoded by": "said by `lookalike init`",
    "encoders/word_fit": "development",
    "bootstrap.py: as recorded before": "said by `lookalike init`",
    "catalog/service.py: Nothing was deleted": "a command",
    "images/download.py: Make the file smaller": "the end of another sentence",
    "images/download.py: Split it into several feeds": "feeds, of an ingest",
    "search/confidence.py": "worded by the page, see `result_headings`",
    "search/explain.py": "worded by the page, see `engine_texts`",
    "search/query_encoder.py: vector": "vectors, of the HTTP API and Python",
    "search/validation.py: A vector cannot": "vectors, of the HTTP API and Python",
    "errors.py: key of the HTTP API": "keys, of commands",
    "errors.py: sha256": "pictures by their sha256, of the HTTP API",
    "errors.py: on Windows": "before anything starts",
    "errors.py: source of products": "ingest",
    "errors.py: could not do this": "the base class, which is not raised",
    "errors.py: cannot be encoded together": "caught by the search",
    "errors.py: nothing was changed": "activation of a model, a command",
    "errors.py: of that name is recorded": "names of models, of commands",
}
"""Why a page does not show the sentences of a file, or one that has these words."""

LOGS = ("debug", "info", "warning", "error", "exception")


SENTENCE = re.compile(r"[A-Z{].* .*[a-z}`)][.!?]", re.DOTALL)
REASON = re.compile(r"[a-z].* .*", re.DOTALL)


def said(file: Path, kind: re.Pattern[str] = SENTENCE) -> Iterator[str]:
    """The sentences in the code of a file, {} for what is filled in: not those of its logs, and
    docstrings only where they are the message of an error."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {part for part in ast.walk(node) if part is not node}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LOGS:
            skipped |= set(ast.walk(node))
        elif isinstance(node, ast.ClassDef) and file.name == "errors.py":
            yield " ".join((ast.get_docstring(node) or "").split())
    for node in ast.walk(tree):
        is_text = node not in skipped and isinstance(node, (ast.Constant, ast.JoinedStr))
        if is_text and kind.fullmatch(text := template(node)):
            yield text


def template(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(str(getattr(part, "value", "")) if isinstance(part, ast.Constant) else "{}"
                   for part in node.values)  # fmt: skip


def test_every_sentence_that_a_page_may_show_is_translated() -> None:
    missing, used = [], set()
    for name in SHOWN:
        place = REPO / "app" / name
        for file in [place] if place.suffix else sorted(place.rglob("*.py")):
            where = file.relative_to(REPO / "app").as_posix()
            for text in said(file):
                reasons = [
                    key for key in NOT_SHOWN
                    if where.startswith(key.partition(": ")[0]) and key.partition(": ")[2] in text
                ]  # fmt: skip
                used |= set(reasons)
                if not reasons and not is_listed(text):
                    missing.append((where, text))
    assert missing == [] and set(NOT_SHOWN) - used == set()


def test_every_reason_of_a_search_is_translated() -> None:
    """They are no whole sentences, and several may stand side by side."""
    made = re.compile(r"Reason\(|\.extended\(|def of_missing_parts")
    files = [
        file
        for file in (REPO / "app/search").glob("*.py")
        if made.search(file.read_text(encoding="utf-8"))
    ]
    texts = {text for file in files for text in said(file, REASON)}
    assert len(files) == 4 and len(texts) > 15
    known = "\n".join((*RULES, *SENTENCES))
    assert {text for text in texts if text not in known and not is_listed(text)} == set()


def is_listed(text: str) -> bool:
    """Whether SENTENCES has a sentence of the engine, `{}` standing for what is filled in."""
    if "{}" not in text:
        return text in SENTENCES
    pattern = re.compile(re.escape(text).replace(r"\{\}", ".+"), re.DOTALL)
    least = letters(text) / 4
    return any(letters(each) >= least and pattern.fullmatch(each) for each in SENTENCES)


def test_the_sentences_of_the_engine_are_its_own() -> None:
    """One that was changed there would be shown in English."""
    found = set(engine_texts())
    patterns = [(re.compile(text), letters(text)) for text in found if ".*" in text]
    everything = "\n".join(found).replace("\\", "")
    lost = [text for text in RULES if not re.search(rf"\b{re.escape(text)}\b", everything)]
    for sentence in SENTENCES:
        least = letters(re.sub(r"\{\w+\}", "", sentence)) / 4  # not a pattern for anything
        said = any(pattern.fullmatch(sentence) for pattern, own in patterns if own >= least)
        if not said and sentence not in everything:
            lost.append(sentence)
    assert lost == []


def letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def test_a_language_comes_from_the_address_a_choice_the_setting_or_the_browser() -> None:
    choose = languages.page_language
    assert choose("fr, de-AT;q=0.8, en;q=0.5", {}, {}, "auto") == "de"
    assert choose("en-US,de;q=0.9", {}, {}, "auto") == "en"
    assert choose("xx;q=many", {}, {}, "auto") == "en"
    assert choose("fr, de ; q=0.8,en;Q=0.5", {}, {}, "auto") == "de"
    assert choose("de;q=0, *", {}, {}, "auto") == "en"
    assert choose("en", {}, {}, "de") == "de"
    assert choose("de", {}, {languages.COOKIE: "en"}, "de") == "en"
    assert choose("de", {"lang": "en"}, {languages.COOKIE: "de"}, "de") == "en"
    assert choose("de", {"lang": "../x"}, {languages.COOKIE: "?"}, "auto") == "de"
    with pytest.raises(BadInput, match="give auto or one of en, de"):
        languages.check_language("klingon")


def test_the_language_of_an_address_is_kept_for_pages_without_it() -> None:
    def script() -> None:
        from app.ui.components import language_choice

        language_choice.draw()

    def kept(**address: str) -> tuple[str, bool]:
        page = AppTest.from_function(script, default_timeout=300)
        page.query_params.update(address)
        state = page.run().session_state
        return state[translation.LANGUAGE], translation.CHOSEN in state

    assert (kept(lang="de"), kept(), kept(lang="xx")) == (
        ("de", True),
        ("en", False),
        ("en", False),
    )


@pytest.mark.parametrize("number", [",", "9" * 400])
def test_a_sku_that_reads_like_another_sentence_is_shown(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ui.engine_texts.language", lambda: "de")
    monkeypatch.setattr("app.ui.translation.language", lambda: "de")
    sentence = "took longer than {} seconds; try again, or download the picture and upload its file"
    sku = sentence.format(number)
    assert engine_text(f"No product has the sku {sku}.") == f"Kein Produkt hat die SKU {sku}."


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("build 7: The index file is missing or cannot be read.",
         "Build 7: Die Indexdatei fehlt oder kann nicht gelesen werden."),
        ("no index has been built yet; pgvector's index found too few pictures",
         "es wurde noch kein Index gebaut; der Index von pgvector fand zu wenige Bilder"),
        ("build 7 with 0 embeddings changed since; parts 1, 2 and 4 of 5 did not answer in time; "
         "their pictures were compared in PostgreSQL",
         "Build 7, 0 Embeddings seither geändert; die Teile 1, 2 und 4 von 5 antworteten nicht "
         "rechtzeitig; ihre Bilder wurden in PostgreSQL verglichen"),
        ("build 7 with 0 embeddings changed since; the words rank the 1,000 products nearest to "
         "the photo, 12 of which have any of them in the catalogue",
         "Build 7, 0 Embeddings seither geändert; die Wörter ordnen die 1.000 Produkte, die dem "
         "Foto am nächsten sind; 12 davon haben eines von ihnen im Katalog"),
        ("build 7 with 0 embeddings changed since; the colours of 0 of 1,060 pictures rank them, "
         "and the whole text's vector the other 1,060",
         "Build 7, 0 Embeddings seither geändert; die Farben von 0 der 1.060 Bilder ordnen sie, "
         "die anderen 1.060 ordnet der Vektor des ganzen Textes"),
        ("recall@10 is 0.981, below 0.99", "Recall@10 ist 0,981, unter 0,99"),
        ("Meanwhile it was decided: A is the same as B (by Ada).",
         "Inzwischen wurde entschieden: A ist dasselbe wie B (von Ada)."),
        ("A and B cannot be different, because of earlier verdicts: A is the same as C (by Ada); "
         "C is the same as B (by Bo). Change one of those first.",
         "A und B können nicht verschieden sein, wegen früherer Urteile: A ist dasselbe wie C (von "
         "Ada); C ist dasselbe wie B (von Bo). Ändern Sie zuerst eines davon."),
    ],
)  # fmt: skip
def test_what_stands_in_a_sentence_of_the_engine_is_translated_too(
    english: str, german: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ui.engine_texts.language", lambda: "de")
    monkeypatch.setattr("app.ui.translation.language", lambda: "de")
    monkeypatch.setattr("app.ui.formatting.locale", lambda: "de")
    assert engine_text(english) == german


def test_the_document_has_the_language_and_its_messages() -> None:
    text = document('<html lang="en"><head></head><body></body></html>', (), "de").decode()
    assert '<html lang="de">' in text and "Schlie\\u00dfen" in text and "TEXTS" not in text


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
