"""`lookalike eval`: quality and speed on labelled query photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.cli.search import filters_option
from app.config import Settings
from app.errors import BadInput, BadSource
from app.evaluation import labelled_queries
from app.evaluation.html_report import report as written
from app.evaluation.labelled_queries import LabelledQueries
from app.evaluation.metrics import CategoryFigures, Difference, Evaluation, worst
from app.search.filters import parse
from app.types import Query

ASKED = {"fold": bool, "near_query": float, "near_match": float}
"""What of a query --against may change, beside every setting."""


@click.command("eval")
@click.argument("queries", type=click.Path(path_type=Path))
@filters_option
@click.option("--fold/--no-fold", default=False, help="Same products come as one.")
@click.option("--near-query", type=float, help="Drop what is no farther than this from the query.")
@click.option(
    "--near-match", type=float, help="Drop what is no farther than this from a better match."
)
@click.option(
    "--against", multiple=True, metavar="RUN.json|NAME=VALUE",
    help="Compare with an earlier run's --json, or with another setting: fold=true,"
    " near-match=0.05, home=OTHER, typo-similarity=0.8, ... May be repeated.",
)  # fmt: skip
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html",
    help="Write the worst queries with their pictures.",
)  # fmt: skip
@click.option("--worst", "count", default=20, show_default=True, type=click.IntRange(1, 1000))
@as_json
def evaluate(
    queries: Path, filters: tuple[str, ...], against: tuple[str, ...], report: Path | None,
    count: int, as_json: bool, **more: Any,
) -> None:  # fmt: skip
    """Measure recall on QUERIES, a CSV with the columns query (a photo) and expected_sku.

    With --filter, only products that pass are searched, and only the queries for them are asked.
    """
    labelled = labelled_queries.read_queries(queries)
    how = Query(filters=parse(list(filters)), **more)
    with App() as app:
        found = labelled_queries.evaluate(app.engine, app.search, labelled, how, note)
        beside = _beside(app.settings, found, labelled, how, against) if against else None
        if report is not None:
            _write(app, report, labelled, found, how, count, beside)
    if as_json:
        print_json(found.as_dict() | ({"against": beside.as_dict()} if beside else {}))
        return
    _print(found, beside)


def _beside(
    settings: Settings,
    found: Evaluation,
    labelled: Sequence[LabelledQueries],
    how: Query,
    against: Sequence[str],
) -> Difference:
    """This run beside the one that --against names."""
    if len(against) == 1 and "=" not in against[0]:
        return labelled_queries.compare(found, labelled_queries.read_run(Path(against[0])))
    changes: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    for words in against:
        name, sign, value = words.partition("=")
        name = name.strip().replace("-", "_").lower()
        if not sign or name not in (*ASKED, *Settings.model_fields):
            raise BadInput(
                f"--against {words!r} is neither one file of `lookalike eval --json` nor "
                f"NAME=VALUE with the name of a setting or one of {', '.join(ASKED)}."
            )
        (asked if name in ASKED else changes)[name] = value.strip()
    other = settings.model_validate(settings.model_dump() | changes)
    with App(other) as app:
        theirs = labelled_queries.evaluate(
            app.engine, app.search, labelled, replace(how, **_typed(asked)), note
        )
    return labelled_queries.compare(found, theirs.ranks)


def _typed(asked: dict[str, str]) -> dict[str, Any]:
    known = {"true": True, "1": True, "false": False, "0": False}
    typed: dict[str, Any] = {}
    for name, value in asked.items():
        try:
            typed[name] = known[value.lower()] if ASKED[name] is bool else float(value)
        except (KeyError, ValueError) as exc:
            kind = "true or false" if ASKED[name] is bool else "a distance such as 0.05"
            raise BadInput(f"--against {name}={value}: {name} is {kind}.") from exc
    return typed


def _write(
    app: App, target: Path, labelled: Sequence[LabelledQueries], found: Evaluation, how: Query,
    count: int, beside: Difference | None,
) -> None:  # fmt: skip
    shown = worst(found.outcomes, count)
    cases = labelled_queries.cases(app.engine, app.search, app.sandbox.decode, labelled, shown, how)
    title = f"{found.queries} queries, recall@1 {found.recall_at_1:.3f}"
    try:
        target.write_text(written(title, found, cases, beside), encoding="utf-8")
    except OSError as exc:
        raise BadSource(f"{target} cannot be written: {exc.strerror or exc}.") from exc
    note(f"The {len(cases)} worst queries are in {target}.")


def _print(found: Evaluation, beside: Difference | None) -> None:
    for name, value in found.as_dict().items():
        if isinstance(value, float) and not name.endswith(("_low", "_high")):
            interval = _interval(found, name)
            click.echo(f"{name:16} {value:.3f}{interval}")
        elif isinstance(value, int):
            click.echo(f"{name:16} {value}")
    if len(found.categories) > 1:
        click.echo()
        heads = ("category", "queries", "recall@1", "recall@10", "mrr")
        print_table(heads, [_row(each) for each in found.categories])
    if beside is not None:
        click.echo(
            f"\nBeside the other run, over {beside.queries} queries: {beside.better} better, "
            f"{beside.worse} worse, {beside.same} the same."
        )
        for name in ("recall_at_1", "recall_at_5", "recall_at_10"):
            click.echo(f"{name:16} {getattr(beside, name):+.3f}{_interval(beside, name, '+')}")


def _interval(found: Evaluation | Difference, name: str, sign: str = "") -> str:
    low = getattr(found, f"{name}_low", None)
    if low is None:
        return ""
    high = getattr(found, f"{name}_high")
    return f"  (95 %: {low:{sign}.3f} to {high:{sign}.3f})"


def _row(found: CategoryFigures) -> tuple[object, ...]:
    shares = (found.recall_at_1, found.recall_at_10, found.mrr)
    return (found.category or "none", found.queries, *(f"{share:.3f}" for share in shares))
