"""`lookalike tune`: measure which path is fastest for filtered searches."""

from __future__ import annotations

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.evaluation.planner_tuning import tune as measure_crossovers


@click.command()
@as_json
def tune(as_json: bool) -> None:
    """Measure the paths of filtered searches; store the crossovers.

    Takes some seconds and needs an idle machine. Run it again when the catalogue has grown a lot.
    """
    with App() as app:
        result = measure_crossovers(app.engine, app.files, app.settings)
    if as_json:
        print_json(result.as_dict())
        return
    columns = ("products that pass", "exact in SQL", "index with selector", "index, then filter")
    rows = [
        (size, *(f"{ms[path]:.2f} ms" for path in ("exact", "among", "deep")))
        for size, ms in result.figures.items()
    ]
    print_table(columns, rows)
    exact, share = result.crossovers.exact_pictures, result.crossovers.deep_share
    note(f"Up to {exact} pictures that pass the filter are compared exactly in SQL.")
    note(f"Above that, from {share:.1%} of the products on, index results are filtered afterwards.")
