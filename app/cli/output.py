"""How commands print: JSON for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; numbers stand right, and nothing is cut off where the output is no terminal."""
    from rich.console import Console  # not for what prints lines or JSON
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    for number, column in enumerate(columns):
        numeric = all(_number(row[number]) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        # Text, for of a str rich would take [red] for a colour.
        table.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False)
    console.print(table)


def note(message: str) -> None:
    """A line for people, beside the result: on standard error."""
    click.echo(message, err=True)


def _number(text: str) -> bool:
    return text.replace(".", "", 1).replace(",", "").removeprefix("-").isdigit() or not text


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    return str(value)
