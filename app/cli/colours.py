"""`lookalike colours`: the visible colours of pictures that have none."""

from __future__ import annotations

import click

from app.bootstrap import App
from app.cli.output import note
from app.operations import picture_colours


@click.command()
def colours() -> None:
    """Compute the colours of pictures loaded by an earlier version.

    Words of the embedded encoder find colours by them. Ingests write them with each picture, and
    the worker computes what is missing too. It may be stopped and run again at any time.
    """
    with App() as app:
        done = picture_colours.fill(app.engine, note)
    note(f"The colours of {done:,} pictures were computed." if done else "No picture lacks them.")
