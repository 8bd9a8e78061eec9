"""Command lines that are written in files: whether `lookalike` would accept them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from app.cli import cli


def parse(words: Sequence[str]) -> None:
    """Raise UsageError unless `lookalike` accepts these arguments."""
    command: click.Command = cli
    context, rest = click.Context(cli), list(words)
    while isinstance(command, click.Group):
        name, subcommand, rest = command.resolve_command(context, rest)
        assert subcommand is not None
        command, context = subcommand, click.Context(subcommand, parent=context, info_name=name)
    command.make_parser(context).parse_args(list(rest))
