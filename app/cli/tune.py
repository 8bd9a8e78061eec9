"""`lookalike tune`: measure which path answers a search with a filter."""

from __future__ import annotations

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.tuning import tune as measure


@click.command()
@as_json
def tune(as_json: bool) -> None:
    """Measure the paths of a filtered search side by side, and keep where they cross.

    Takes some seconds and wants a quiet machine. Run it again when the catalogue has grown a lot.
    """
    with App() as app:
        found = measure(app.engine, app.files, app.settings)
    if as_json:
        print_json(found.as_dict())
        return
    columns = ("products that pass", "compared in SQL", "index among them", "index, then filtered")
    rows = [
        (size, *(f"{ms[path]:.2f} ms" for path in ("exact", "among", "deep")))
        for size, ms in found.figures.items()
    ]
    print_table(columns, rows)
    note(f"Up to {found.crossovers.exact_pictures} pictures that pass are compared in SQL.")
    note(
        f"From {found.crossovers.deep_share:.1%} of the products the index is filtered afterwards."
    )
