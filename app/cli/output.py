"""How commands print: JSON for programs, tables for people."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import click

PROGRESS_INTERVAL_S = 10.0

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


on_cluster = click.option(
    "--on", "address", metavar="ADDRESS",
    help="Run on a Ray cluster: ray://HOST:10001, HOST:6379, or 'local' for processes of this "
    "machine.",
)  # fmt: skip


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_json_value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned. Without a terminal it is 240 characters wide."""
    from rich.console import Console  # here, because most commands print no table
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    for number, column in enumerate(columns):
        numeric = all(_is_number(row[number]) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        # Text, because rich reads [red] in a str as a colour.
        table.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False)
    console.print(table)


def note(message: str) -> None:
    """Print a message on standard error, so that standard output has the result alone."""
    click.echo(message, err=True)


class ThrottledProgress:
    """Prints a progress message at most every PROGRESS_INTERVAL_S seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PROGRESS_INTERVAL_S

    def __call__(self, message: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_INTERVAL_S
            note(message)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace(",", "").removeprefix("-").isdigit() or not text


def _json_value(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    return str(value)
