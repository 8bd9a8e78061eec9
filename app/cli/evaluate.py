"""`lookalike eval`: quality and speed on labelled query photos."""

from __future__ import annotations

from pathlib import Path

import click

from app import evaluation
from app.bootstrap import App
from app.cli.output import as_json, note, print_json
from app.cli.search import filters_option
from app.filters import parse


@click.command("eval")
@click.argument("queries", type=click.Path(path_type=Path))
@filters_option
@as_json
def evaluate(queries: Path, filters: tuple[str, ...], as_json: bool) -> None:
    """Measure recall on QUERIES, a CSV with the columns query (a photo) and expected_sku.

    With --filter, only products that pass are searched, and only the queries for them are asked.
    """
    labelled = evaluation.read_queries(queries)
    with App() as app:
        found = evaluation.evaluate(app.engine, app.search, labelled, parse(list(filters)), note)
    if as_json:
        print_json(found.as_dict())
        return
    for name, value in found.as_dict().items():
        click.echo(f"{name:13} {value:.3f}" if isinstance(value, float) else f"{name:13} {value}")
