"""A click group that imports the module of a command only when the command is used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group that lists its commands without importing them.

    `locations` maps the name of a command to `module:attribute` and the first sentence of its help.
    """

    def __init__(self, *args: Any, locations: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._locations = locations
        self.commands = {
            name: click.Command(name, help=summary) for name, (_, summary) in locations.items()
        }
        self._summaries = click.Group(commands=dict(self.commands))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported; None where there is none."""
        if cmd_name not in self._locations:
            return None
        module, attribute = self._locations[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        self.commands[cmd_name] = command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by their summaries, without importing any."""
        self._summaries.format_commands(ctx, formatter)
