"""`lookalike backup` and `restore`: copy the whole catalogue to a folder and back."""

from __future__ import annotations

from pathlib import Path

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("target", type=FOLDER)
@click.option(
    "--with-photos", is_flag=True,
    help="Include the photos that people sent to search with, which the database deletes in time.",
)  # fmt: skip
@as_json
def backup(target: Path, with_photos: bool, as_json: bool) -> None:
    """Back up a snapshot of the catalogue into TARGET, a new folder.

    Searches and loads go on meanwhile. A backup has no index files and no original photos.
    """
    from app.operations.backup import backup as create_backup

    with App() as app:
        manifest = create_backup(app.engine, target, notify=note, photos=with_photos)
    if as_json:
        print_json(manifest.as_dict())
    else:
        products = manifest.rows.get("public.product", 0)
        size = manifest.size / 1e6
        click.echo(f"{products:,} products backed up in {target}, {size:,.1f} MB.")


@click.command()
@click.argument("source", type=FOLDER)
@as_json
def restore(source: Path, as_json: bool) -> None:
    """Restore the backup in SOURCE into a new database.

    Restores everything or nothing. Set LOOKALIKE_DATABASE_URL to the new database, or
    LOOKALIKE_HOME to a new folder. Afterwards run `lookalike index rebuild`.
    """
    from app.operations.restore import restore as restore_backup

    with App() as app:
        manifest = restore_backup(app.engine, source, notify=note)
    if as_json:
        print_json(manifest.as_dict())
    else:
        products = manifest.rows.get("public.product", 0)
        click.echo(f"{products:,} products restored as of {manifest.made_at:%Y-%m-%d %H:%M} UTC.")
    note("pgvector answers until an index is built; run `lookalike index rebuild`.")
