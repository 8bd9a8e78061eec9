"""`lookalike tune`: measure which path answers a search with a filter."""

from __future__ import annotations

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.evaluation.planner_tuning import tune as measure


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
    exact, share = found.crossovers.exact_pictures, found.crossovers.deep_share
    note(f"Up to {exact} pictures that pass are compared in SQL, however many that is of all.")
    note(f"Beyond, from {share:.1%} of the products on, the index is filtered afterwards.")
