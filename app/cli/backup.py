"""`lookalike backup` and `restore`: the whole catalogue into a folder, and out of it."""

from __future__ import annotations

from pathlib import Path

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("target", type=FOLDER)
@as_json
def backup(target: Path, as_json: bool) -> None:
    """Back the catalogue up into TARGET, a new folder, as it is at this moment.

    Searches and loads go on meanwhile. Index files and the original photos are not in it.
    """
    from app.operations.backup import backup as make

    with App() as app:
        made = make(app.engine, target, tell=note)
    if as_json:
        print_json(made.as_dict())
    else:
        products = made.rows.get("public.product", 0)
        click.echo(f"{products:,} products backed up in {target}, {made.size / 1e6:,.1f} MB.")


@click.command()
@click.argument("source", type=FOLDER)
@as_json
def restore(source: Path, as_json: bool) -> None:
    """Restore the backup in SOURCE into a new database, all of it or nothing.

    Name the database with LOOKALIKE_DATABASE_URL, or a new folder with LOOKALIKE_HOME. Afterwards
    run `lookalike index rebuild`.
    """
    from app.operations.restore import restore as bring_back

    with App() as app:
        found = bring_back(app.engine, source, tell=note)
    if as_json:
        print_json(found.as_dict())
    else:
        products = found.rows.get("public.product", 0)
        click.echo(f"{products:,} products restored as of {found.made_at:%Y-%m-%d %H:%M} UTC.")
    note("pgvector answers until an index is built; run `lookalike index rebuild`.")
