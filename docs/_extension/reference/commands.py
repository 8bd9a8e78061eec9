"""Commands, from click: what `--help` prints, as a section for each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from app.cli import cli
from reference.markdown import code, table


def commands() -> str:
    """A section for each command, with its arguments and options."""
    context = click.Context(cli, info_name="lookalike")
    return "\n\n".join(_sections(cli, context, 2))


def _sections(group: click.Group, context: click.Context, level: int) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = click.Context(command, parent=context, info_name=name)
        yield f"{'#' * level} {below.command_path}\n\n{_description(command, below)}"
        if isinstance(command, click.Group):
            yield from _sections(command, below, level + 1)


def _description(command: click.Command, context: click.Context) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [inspect.cleandoc(command.help or "").replace("<", "\\<")]
    parts.append(f"```text\n{context.command_path} {usage}\n```")
    rows = [
        (code(", ".join([*each.opts, *each.secondary_opts])), _meaning(each, context))
        for each in command.get_params(context)
        if isinstance(each, click.Option) and not each.hidden and each.name != "help"
    ]
    if rows:
        parts.append(table(("option", "meaning"), rows))
    return "\n\n".join(parts)


def _meaning(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    return (record[1] if record else "").replace("[", "\\[").replace("<", "\\<")
