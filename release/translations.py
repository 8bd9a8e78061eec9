"""Updates the translations of the pages: what there is to translate, and the compiled catalogues.

    python release/translations.py          extract the messages, update and compile all languages
    python release/translations.py add fr   begin a language

What has to be translated then stands in `app/ui/locales/<language>/LC_MESSAGES/lookalike.po`, with
an empty `msgstr`; after it is translated, run this again. Tests refuse a catalogue with a message
that is missing, fuzzy or no longer used.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
LOCALES = ROOT / "app" / "ui" / "locales"
KEYWORDS = {"_": None, "N_": None, "ngettext": (1, 2)}

LONG_AGO = datetime(2026, 11, 30, tzinfo=UTC)
"""Dates of the headers, so that a catalogue changes only with its messages."""

PLACE = re.compile(r"\{\w+\}")
"""What is filled into a message."""


def template() -> Catalog:
    """All messages of the pages, without translations."""
    found = Catalog(project="Lookalike", creation_date=LONG_AGO, revision_date=LONG_AGO)
    folder = ROOT / "app" / "ui"
    for name, _line, message, _comments, _context in extract_from_dir(
        folder, [("**.py", "python")], keywords=KEYWORDS
    ):
        found.add(message, locations=[(f"app/ui/{name}", 0)])
    return found


def read(file: Path) -> Catalog:
    """A catalogue of translations."""
    with file.open("rb") as opened:
        return read_po(opened, locale=file.parent.parent.name)


def source(catalogue: Catalog) -> bytes:
    """A catalogue as a .po file."""
    written = io.BytesIO()
    write_po(written, catalogue, width=100, include_lineno=False, sort_by_file=True)
    return b"\n".join(line.rstrip() for line in written.getvalue().splitlines()) + b"\n"


def compiled(catalogue: Catalog) -> bytes:
    """A catalogue as a .mo file."""
    written = io.BytesIO()
    write_mo(written, catalogue)
    return written.getvalue()


def updated(catalogue: Catalog, messages: Catalog) -> Catalog:
    """A catalogue with these messages: new ones without a translation, and none that is unused."""
    catalogue.update(messages, no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    catalogue.creation_date = catalogue.revision_date = LONG_AGO
    catalogue.project, catalogue.version, catalogue.fuzzy = "Lookalike", "", False
    catalogue.header_comment = f"# Messages of the pages in {catalogue.locale_identifier}."
    catalogue.last_translator = catalogue.language_team = catalogue.msgid_bugs_address = ""
    return catalogue


def faults(catalogue: Catalog, messages: Catalog) -> Iterator[str]:
    """What is wrong with a catalogue, each in one line."""
    wanted = {message.id for message in messages if message.id}
    known = {message.id for message in catalogue if message.id}
    yield from (f"missing: {id_}" for id_ in wanted - known)
    yield from (f"no longer used: {id_}" for id_ in known - wanted)
    for message in catalogue:
        if message.id:
            yield from _faults_of(message)


def _faults_of(message: Message) -> Iterator[str]:
    if message.fuzzy:
        yield f"fuzzy: {message.id}"
    originals = message.id if isinstance(message.id, tuple) else (message.id,)
    texts = message.string if isinstance(message.string, tuple) else (message.string,)
    if not all(texts):
        yield f"not translated: {message.id}"
    for text in filter(None, texts):
        if set(PLACE.findall(text)) != set(PLACE.findall(originals[-1])):
            yield f"other places: {text}"
        if originals[0][:1].isspace() != text[:1].isspace():
            yield f"other spaces: {text}"


def main(arguments: list[str]) -> None:
    """Update all languages, or begin one."""
    messages = template()
    if arguments[:1] == ["add"]:
        begun = Catalog(arguments[1], creation_date=LONG_AGO, revision_date=LONG_AGO)
        file = LOCALES / arguments[1] / "LC_MESSAGES" / "lookalike.po"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source(begun))
    for file in sorted(LOCALES.glob("*/LC_MESSAGES/lookalike.po")):
        catalogue = updated(read(file), messages)
        file.write_bytes(source(catalogue))
        file.with_suffix(".mo").write_bytes(compiled(catalogue))
        for fault in sorted(faults(catalogue, messages)):
            print(f"{file.parent.parent.name}: {fault}")


if __name__ == "__main__":
    main(sys.argv[1:])
