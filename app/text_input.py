"""Parses text that users supply: years, prices, and CSV files with two required columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
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


def parse_year(text: str, *, to_compare: bool = False) -> int:
    """A calendar year to store, 0 to 9999, or to compare with: any 32-bit integer.

    A year to compare with may also have underscores between its digits. Raises ValueError, whose
    message continues "The year ...".
    """
    first, last = (-(2**31), 2**31 - 1) if to_compare else (0, 9999)
    try:
        year = int(_without_underscores(text, to_compare))
    except ValueError:
        raise ValueError("is not a whole number") from None
    if not first <= year <= last:
        raise ValueError(f"is not between {first} and {last}")
    return year


def parse_price(text: str, *, to_compare: bool = False) -> Decimal:
    """An amount rounded to four decimals, as `product.price` stores it, from 0 to below 10^10.

    One to compare with may also be negative, have underscores between its digits, and be rounded up
    to 10^10. Raises ValueError, whose message continues "The price ...".
    """
    try:
        price = Decimal(_without_underscores(text, to_compare))
    except (InvalidOperation, ValueError):
        raise ValueError("is not a number such as 12.50") from None
    if price.is_finite() and abs(price) < 10**10:
        price = price.quantize(Decimal("0.0001"))
        # Rounding may have added a digit that the column does not have.
        if to_compare or 0 <= price < 10**10:
            return price
    lowest = "-9,999,999,999" if to_compare else "0"
    raise ValueError(f"is not between {lowest} and 9,999,999,999")


def _without_underscores(text: str, allowed: bool) -> str:
    """The text; raises ValueError if it has underscores, which Python accepts in a number."""
    if "_" in text and not allowed:
        raise ValueError(text)
    return text
