"""`lookalike init`, `migrate` and `db`: the database before there is a catalogue in it."""

from __future__ import annotations

import os

import click

from app.bootstrap import App
from app.cli.output import note
from app.config import Settings
from app.db import dsn
from app.db.embedded import server as embedded_server
from app.db.engine import database_url
from app.operations.roles import create, script

MIGRATOR, SERVER = "MIGRATOR_PASSWORD", "SERVER_PASSWORD"
"""Variables that hold passwords: everybody on a machine can read the words of a command."""


@click.command()
@click.option("--model", help="'embedded', a hub name such as clip-ViT-B-32, or a folder.")
def init(model: str | None) -> None:
    """Make the tables and record the model the catalogue is embedded with.

    Without --model, LOOKALIKE_MODEL decides; 'auto', the default, takes CLIP if it can be loaded
    and the embedded encoder (pictures only) if not. Run again, it changes nothing.
    """
    settings = Settings(model=model) if model else Settings()
    with App(settings) as app:
        note(app.initialise())


@click.command()
def migrate() -> None:
    """Bring the tables, views and functions to this version; loads no model."""
    from app.operations.migrate import migrate as run

    with App() as app:
        note(f"The database is at migration {run(app.engine)}.")


@click.group()
def db() -> None:
    """The database server: its address, start and stop."""


@db.command()
@click.option("--with-password", is_flag=True, help="Print the password that is in it, too.")
def url(with_password: bool) -> None:
    """Print the address of the database, as psql accepts it; a password in it is left out.

    Everybody on a machine can read the arguments of a command. psql takes the password from
    PGPASSWORD or its password file.
    """
    found = database_url(Settings())
    click.echo(dsn.for_psql(found) if with_password else dsn.without_password(found))


@db.command()
@click.option("--migrator", required=True, help="The role that migrates and owns the tables.")
@click.option("--server", required=True, help="The role that searches, loads and builds.")
@click.option("--apply", is_flag=True, help="Run the script here, as the user of the address.")
def roles(migrator: str, server: str, apply: bool) -> None:
    """Print the script that makes a role to migrate and a role to serve.

    With --apply it is run, as a superuser; it may run again at any time. The passwords are taken
    from the variables MIGRATOR_PASSWORD and SERVER_PASSWORD, where they are set.
    """
    if not apply:
        click.echo(script(migrator, server), nl=False)
        return
    found = {migrator: os.environ.get(MIGRATOR), server: os.environ.get(SERVER)}
    with App() as app:
        create(app.engine, migrator, server, {name: word for name, word in found.items() if word})
    note(f"{migrator} migrates and {server} serves.")


@db.command()
def start() -> None:
    """Start the embedded server unless it runs; other commands do that by themselves."""
    settings = Settings()
    if settings.database_url:
        note("LOOKALIKE_DATABASE_URL names a server; there is none to start here.")
    else:
        note(f"The embedded server runs: {embedded_server.start(settings.home)}")


@db.command()
def stop() -> None:
    """Stop the embedded server; nothing is lost."""
    settings = Settings()
    if settings.database_url:
        note("LOOKALIKE_DATABASE_URL names a server; it is not Lookalike's to stop.")
    elif embedded_server.stop(settings.home):
        note("The embedded server was stopped.")
    else:
        note("The embedded server was not running.")
