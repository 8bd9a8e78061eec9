"""How commands print: JSON for programs, tables for people."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import click

PROGRESS_INTERVAL_S = 10.0

WIDTH = 240
"""Columns of a table that is not printed on a terminal."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


on_cluster = click.option(
    "--on", "address", metavar="ADDRESS",
    help="Run on a Ray cluster: ray://HOST:10001, HOST:6379, or 'local' for processes of this "
    "machine.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Captured:
    """What is printed for the terminal of another process, `columns` wide; None: it has none.
    `plain`: the terminal knows no styles."""

    columns: int | None
    plain: bool = False
    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)


_captured: ContextVar[Captured | None] = ContextVar("captured", default=None)


@contextmanager
def captured(columns: int | None, *, plain: bool = False) -> Iterator[Captured]:
    """Collect what this thread prints with the functions of this module."""
    output = Captured(columns, plain)
    token = _captured.set(output)
    try:
        yield output
    finally:
        _captured.reset(token)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    _echo(json.dumps(value, ensure_ascii=False, indent=2, default=_json_value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned. Without a terminal it is WIDTH characters wide."""
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
    if (output := _captured.get()) is None:
        console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    else:
        styled = output.columns is not None and not output.plain
        console = Console(
            file=output.out, width=output.columns or WIDTH, highlight=False,
            force_terminal=output.columns is not None,
            color_system="standard" if styled else None,
        )  # fmt: skip
    console.print(table)


def note(message: str) -> None:
    """Print a message on standard error, so that standard output has the result alone."""
    _echo(message, err=True)


def _echo(message: str, *, err: bool = False) -> None:
    if (output := _captured.get()) is None:
        click.echo(message, err=err)
    else:
        (output.err if err else output.out).write(f"{message}\n")


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
