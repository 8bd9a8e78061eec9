"""`lookalike events`: searches of the HTTP API and what people did with their results."""

from __future__ import annotations

from dataclasses import asdict

import click

from app.bootstrap import App
from app.cli.output import as_json, print_json


@click.group()
def events() -> None:
    """Manage recorded searches, and events on their results."""


@events.command()
@as_json
def prune(as_json: bool) -> None:
    """Delete searches, events and kept photos that are older than LOOKALIKE_EVENT_DAYS.

    Photos to search with, and shared searches, are deleted once they have expired.

    The worker does it once an hour. Where none runs, let a scheduler run this once a day.
    """
    with App() as app:
        report = app.events.clean_up()
    if as_json:
        print_json(asdict(report))
        return
    click.echo(
        f"{report.dropped} days of searches or events deleted, {report.added} prepared; "
        f"{report.photos} photos deleted."
    )
