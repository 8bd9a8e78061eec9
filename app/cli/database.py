"""`lookalike init`, `migrate` and `db`: set up the database and manage its server."""

from __future__ import annotations

import os
from pathlib import Path

import click

from app.bootstrap import App
from app.cli.output import note
from app.config import Settings
from app.db import dsn
from app.db.embedded import server as embedded_server
from app.db.engine import database_url
from app.operations.roles import create_roles, roles_script
from app.secret_files import read_secret

MIGRATOR, SERVER = "MIGRATOR_PASSWORD", "SERVER_PASSWORD"
"""Environment variables of passwords: all users of a machine can read command-line arguments.
With `_FILE` behind it, each names a file that holds the password."""


@click.command()
@click.option("--model", help="'embedded', a hub name such as clip-ViT-B-32, or a folder.")
def init(model: str | None) -> None:
    """Create the tables and record the embedding model.

    Without --model, LOOKALIKE_MODEL decides. The default 'auto' takes CLIP if it can be loaded and
    else the embedded encoder, which reads few words. Running it again changes nothing.
    """
    settings = Settings(model=model) if model else Settings()
    with App(settings) as app:
        note(app.initialise())


@click.command()
def migrate() -> None:
    """Migrate tables, views and functions; loads no model."""
    from app.operations.migrate import migrate as run

    with App() as app:
        note(f"The database is at migration {run(app.engine)}.")


@click.group()
def db() -> None:
    """Manage the database server: address, roles, start and stop."""


@db.command()
@click.option("--with-password", is_flag=True, help="Include the password.")
def url(with_password: bool) -> None:
    """Print the address of the database for psql, without its password.

    All users of a machine can read command-line arguments. psql takes the password from PGPASSWORD
    or its password file.
    """
    address = database_url(Settings())
    click.echo(dsn.for_psql(address) if with_password else dsn.without_password(address))


@db.command()
@click.option("--migrator", required=True, help="The role that migrates and owns the tables.")
@click.option("--server", required=True, help="The role that searches, loads and builds.")
@click.option("--apply", is_flag=True, help="Run the script as the user of the address.")
def roles(migrator: str, server: str, apply: bool) -> None:
    """Print the SQL script that creates a role to migrate and a role to serve.

    --apply runs it, which needs a superuser; it may run again at any time. The passwords come from
    the environment variables MIGRATOR_PASSWORD and SERVER_PASSWORD, or from the files that
    MIGRATOR_PASSWORD_FILE and SERVER_PASSWORD_FILE name, if they are set.
    """
    if not apply:
        click.echo(roles_script(migrator, server), nl=False)
        return
    variables = {migrator: _password(MIGRATOR), server: _password(SERVER)}
    passwords = {role: password for role, password in variables.items() if password}
    with App() as app:
        create_roles(app.engine, migrator, server, passwords)
    note(f"{migrator} migrates and {server} serves.")


def _password(variable: str) -> str | None:
    if named := os.environ.get(f"{variable}_FILE"):
        return read_secret(Path(named))
    return os.environ.get(variable)


@db.command()
def start() -> None:
    """Start the embedded server unless it is running; other commands start it if they need it."""
    settings = Settings()
    if settings.database_url:
        note("LOOKALIKE_DATABASE_URL is set, so there is no embedded server to start.")
    else:
        note(f"The embedded server is running: {embedded_server.start(settings.home)}")


@db.command()
def stop() -> None:
    """Stop the embedded server; its data stays."""
    settings = Settings()
    if settings.database_url:
        note("LOOKALIKE_DATABASE_URL is set; Lookalike does not stop that server.")
    elif embedded_server.stop(settings.home):
        note("The embedded server was stopped.")
    else:
        note("The embedded server was not running.")
