"""Reads CSV files with two required columns, as users give them to commands."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from app.errors import BadSource


def read_two_columns(source: Path, first: str, second: str) -> Iterator[tuple[int, str, str]]:
    """Line number and the two values of each row of a CSV file in UTF-8 with a header.

    A missing value is ''. Other columns are ignored. Raises BadSource for a file that cannot be
    read, is not CSV in UTF-8, or lacks one of the columns.
    """
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not {first, second} <= set(rows.fieldnames or ()):
                raise BadSource(f"{source} needs the columns {first} and {second}.")
            for row in rows:
                yield rows.line_num, row[first] or "", row[second] or ""
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc
    except (UnicodeError, csv.Error) as exc:
        raise BadSource(f"{source} is not a CSV file in UTF-8: {exc}.") from exc
