"""Reads some columns of a CSV file that a user supplies."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import BadSource


def read_two_columns(source: Path, first: str, second: str) -> Iterator[tuple[int, str, str]]:
    """Line number and the two values of each row of a CSV file, as `read_columns`."""
    for line, row in read_columns(source, first, second):
        yield line, row[first], row[second]


def read_columns(
    source: Path, *needed: str, optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and the values by column of each row of a CSV file in UTF-8 with a header.

    A missing value is ''. Other columns are ignored. Raises BadSource for a file that cannot be
    read, is not CSV in UTF-8, or lacks one of the columns `needed`; the message names the first of
    the `optional` ones too.
    """
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not set(needed) <= set(rows.fieldnames or ()):
                names = " and ".join((*optional[:1], *needed))
                raise BadSource(f"{source} needs the columns {names}.")
            for row in rows:
                yield rows.line_num, {name: row.get(name) or "" for name in (*needed, *optional)}
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc
    except (UnicodeError, csv.Error) as exc:
        raise BadSource(f"{source} is not a CSV file in UTF-8: {exc}.") from exc
