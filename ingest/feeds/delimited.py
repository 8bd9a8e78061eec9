"""Reads delimited text (CSV, TSV) as rows of values with their line numbers."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path

from app.db.text import has_surrogates
from app.errors import BadSource
from ingest.sources import MAX_FIELD_LENGTH, text_encoding

NamedValues = list[tuple[str, str]]
"""Column names and stripped values of a row, in order; a column may occur more than once."""


def open_table(
    source: Path, encoding: str, separator: str, rename: Callable[[str], str]
) -> tuple[list[str], Iterator[tuple[int, NamedValues | str]]]:
    """The renamed column names in the first line, and the rows after it with their line numbers,
    from 1; a text is the reason why a row is refused.

    The file is opened once. Raises BadSource, also while iterating, for a file that cannot be read.
    """
    rows = _rows(source, encoding, separator)
    _, first = next(rows, (1, ""))
    if isinstance(first, str):
        raise BadSource(f"{source} has no first line that names the columns.")
    names = [rename(name) for name in first]
    return names, _named_rows(rows, names, encoding)


def _named_rows(
    rows: Iterator[tuple[int, list[str] | str]], names: list[str], encoding: str
) -> Iterator[tuple[int, NamedValues | str]]:
    for line, values in rows:
        if isinstance(values, str):
            yield line, values
        elif any(value.strip() for value in values):
            yield line, _named(names, values, encoding)


def _named(names: list[str], values: list[str], encoding: str) -> NamedValues | str:
    if len(values) != len(names):
        advice = "quote separators" if len(values) > len(names) else "the row is cut short"
        count = f"{len(values)} value{'s' * (len(values) != 1)} for {len(names)} columns"
        return f"{count}; {advice}"
    if has_surrogates("".join(values)):
        return f"not {encoding} text; save the file as UTF-8 or name its encoding"
    if any("\0" in value for value in values):
        return "a field holds a NUL character"
    return [(name, value.strip()) for name, value in zip(names, values, strict=True) if name]


def _rows(source: Path, encoding: str, separator: str) -> Iterator[tuple[int, list[str] | str]]:
    csv.field_size_limit(MAX_FIELD_LENGTH)
    try:
        with (
            source.open("rb") as file,
            TextIOWrapper(
                file, text_encoding(file.peek(4)[:4], encoding), errors="surrogateescape",
                newline="",
            ) as text,
        ):  # fmt: skip
            lines = csv.reader(text, delimiter=separator, strict=True)
            while True:
                line = lines.line_num + 1
                try:
                    yield line, next(lines)
                except StopIteration:
                    return
                except csv.Error as exc:
                    yield line, f"not a row: {exc}"
    except LookupError as exc:
        raise BadSource(f"There is no encoding named {encoding!r}.") from exc
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc
    except UnicodeError as exc:
        raise BadSource(f"{source} is not {encoding}: {exc}. Name its encoding.") from exc
