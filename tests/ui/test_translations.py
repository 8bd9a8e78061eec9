"""The catalogues of messages: complete, compiled, and with every sentence of the engine."""

from __future__ import annotations

import ast
import gettext
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.ui import languages
from app.ui.engine_sentences import RULES, SENTENCES

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
    assert len(files) == 5 and len(texts) > 15
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
