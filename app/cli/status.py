"""`lookalike status`: run all health checks and print them."""

from __future__ import annotations

import click

from app.bootstrap import App
from app.cli.output import as_json, print_json
from app.errors import LookalikeError
from app.operations.health import HealthCheck, HealthStatus
from app.operations.health import status as run_checks


@click.command()
@as_json
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Run the health checks; the exit code is 1 if any fails."""
    try:
        with App() as app:
            health = run_checks(app.engine, app.files, app.settings)
    except LookalikeError as exc:
        health = HealthStatus((HealthCheck("database", None, False, str(exc)),))
    if as_json:
        print_json(health.as_dict())
    else:
        for check in health.checks:
            click.echo(_line(check))
    context.exit(0 if health.healthy else 1)


def _line(check: HealthCheck) -> str:
    mark = "ok " if check.ok else "BAD"
    value = "none" if check.value is None else check.value
    return f"{mark} {check.name:18} {value}" + (f"\n    {check.advice}" if check.advice else "")
