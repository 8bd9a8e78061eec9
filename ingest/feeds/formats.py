"""Recognises the format of a source, and reads it as rows."""

from __future__ import annotations

import csv
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from app.errors import BadSource
from ingest.feeds.catalogue_csv import read
from ingest.feeds.google import is_google
from ingest.feeds.google_table import read_google_table
from ingest.feeds.google_xml import read_google_xml
from ingest.feeds.json_lines import read_json_lines
from ingest.feeds.parquet import read_parquet
from ingest.feeds.shopify_csv import is_shopify, read_shopify_csv
from ingest.feeds.shopify_jsonl import PREFIX, read_shopify_jsonl
from ingest.sources import SourceReject, SourceRow, text_encoding

AUTO = "auto"

Rows = Iterator[SourceRow | SourceReject]

READERS: dict[str, Callable[[Path, str], Rows]] = {
    "csv": lambda source, encoding: read(source, encoding=encoding),
    "google-tsv": lambda source, encoding: _google_table(source, encoding),
    "google-xml": lambda source, encoding: read_google_xml(source),
    "shopify-csv": read_shopify_csv,
    "shopify-jsonl": lambda source, encoding: read_shopify_jsonl(source),
    "jsonl": lambda source, encoding: read_json_lines(source),
    "parquet": lambda source, encoding: read_parquet(source),
}
"""By the name of a format: reads a file in an encoding (where the format does not fix it)."""

FORMATS = (AUTO, *READERS)

START = 1 << 16
"""Bytes at the start of a file by which its format is recognised."""


def read_source(source: Path, *, encoding: str = "utf-8", format: str = AUTO) -> Rows:
    """The rows of a file, or of a folder of pictures. Raises BadSource."""
    if format == AUTO or _is_folder(source):
        format = recognise(source, encoding)
    return READERS[format](source, encoding)


def recognise(source: Path, encoding: str = "utf-8") -> str:
    """The name of the format of a file by its start, not by its name; "csv" where in doubt, and for
    a folder. Raises BadSource for a file that is compressed, a spreadsheet, or one JSON array."""
    if not _is_file(source):
        return "csv"  # whose reader refuses what is neither a file nor a folder
    start = _start(source)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04"):
        raise BadSource(
            f"{source} is a zip archive or a spreadsheet: unpack it, or save the sheet as CSV in "
            "UTF-8."
        )
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise BadSource(f"{source} is compressed; unpack it first.")
    text = _text(start, encoding)
    if text.startswith("<"):
        return "google-xml"
    if re.match(r"\{\s*\"", text):
        return "shopify-jsonl" if f'"{PREFIX}' in text.replace("\\/", "/") else "jsonl"
    if re.match(r"\[\s*[\[{\]]", text):
        raise BadSource(f"{source} is one JSON array; write one object a line (JSON lines).")
    return _table_format(text)


def _table_format(text: str) -> str:
    names = _columns(text, ",")
    if is_google(_columns(text, "\t")):
        return "google-tsv"
    if "sku" in [name.lower() for name in names] and "url handle" not in map(str.lower, names):
        return "csv"
    if is_shopify(names):
        return "shopify-csv"
    return "google-tsv" if is_google(names) else "csv"


def _google_table(source: Path, encoding: str) -> Rows:
    names = _columns(_text(_start(source), encoding), "\t")
    return read_google_table(source, encoding, "\t" if len(names) > 1 else ",")


def _text(start: bytes, encoding: str) -> str:
    """The start of a file as text, as far as its format needs it."""
    try:
        text = start.decode(text_encoding(start[:4], encoding), "replace")
    except LookupError:  # its reader says so
        text = start.decode("latin-1")
    return text.lstrip("\ufeff\x00\r\n\t ")


def _columns(text: str, separator: str) -> list[str]:
    """The values of the first line; empty if it is none."""
    try:
        names: list[str] = next(csv.reader(text.splitlines()[:1], delimiter=separator), [])
    except csv.Error:
        return []
    return [name.strip() for name in names]


def _start(source: Path) -> bytes:
    try:
        with source.open("rb") as file:
            return file.read(START)
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc


def _is_folder(source: Path) -> bool:
    return _mode(source, stat.S_ISDIR)


def _is_file(source: Path) -> bool:
    return _mode(source, stat.S_ISREG)


def _mode(source: Path, test: Callable[[int], bool]) -> bool:
    try:
        return test(source.stat().st_mode)
    except OSError:
        return False
