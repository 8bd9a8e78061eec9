"""Commands whose modules are loaded when they are named: a list of them all costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group that knows of its commands where they are and what they do, in a sentence.

    `found_at` maps a command's name to `module:attribute` and the first sentence of its help.
    """

    def __init__(self, *words: Any, found_at: Mapping[str, tuple[str, str]], **more: Any) -> None:
        super().__init__(*words, **more)
        self._found_at = found_at
        self.commands = {
            name: click.Command(name, help=help) for name, (_, help) in found_at.items()
        }
        self._listed = click.Group(commands=dict(self.commands))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, loaded."""
        if cmd_name not in self._found_at:
            return None
        module, attribute = self._found_at[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        self.commands[cmd_name] = command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of the commands, none of which is loaded for it."""
        self._listed.format_commands(ctx, formatter)
