"""`lookalike status`: whether everything is as it should be."""

from __future__ import annotations

import click

from app.bootstrap import App
from app.cli.output import as_json, print_json
from app.errors import LookalikeError
from app.operations.health import HealthCheck, HealthStatus
from app.operations.health import status as look


@click.command()
@as_json
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show database, model, catalogue and index; the exit code is 0 if all is well, else 1."""
    try:
        with App() as app:
            found = look(app.engine, app.files, app.settings)
    except LookalikeError as exc:
        found = HealthStatus((HealthCheck("database", None, False, str(exc)),))
    if as_json:
        print_json(found.as_dict())
    else:
        for check in found.checks:
            click.echo(_line(check))
    context.exit(0 if found.healthy else 1)


def _line(check: HealthCheck) -> str:
    mark = "ok " if check.ok else "BAD"
    value = "none" if check.value is None else check.value
    return f"{mark} {check.name:18} {value}" + (f"\n    {check.advice}" if check.advice else "")
