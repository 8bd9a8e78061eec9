"""`lookalike eval`: recall and latency on labelled queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from app.bootstrap import App
from app.cli.output import ThrottledProgress, as_json, note, print_json, print_table
from app.cli.search import filters_option
from app.config import Settings
from app.errors import BadInput, BadSource
from app.evaluation import event_queries, labelled_queries
from app.evaluation.html_report import evaluation_report as html_report
from app.evaluation.labelled_queries import LabelledQuery
from app.evaluation.metrics import CategoryFigures, Evaluation, RunDifference, worst
from app.search.filters import parse
from app.types import Query

QUERY_FIELDS = {"fold": bool, "near_query": float, "near_match": float}
"""Fields of a query, by type, that --against may change; it may change every setting too."""


@click.command("eval")
@click.argument("queries", type=click.Path(path_type=Path), required=False)
@click.option(
    "--from-events", is_flag=True,
    help="In place of QUERIES: searches of the HTTP API, and what was clicked or bought in them.",
)  # fmt: skip
@filters_option
@click.option("--fold/--no-fold", default=False, help="Show duplicate products as one.")
@click.option(
    "--near-query", type=float, help="Drop products at most this distance from the query."
)
@click.option(
    "--near-match",
    type=float,
    help="Drop products at most this distance from a better match.",
)
@click.option(
    "--against", multiple=True, metavar="RUN.json|NAME=VALUE",
    help="Compare with the --json output of an earlier run, or with other settings: fold=true,"
    " near-match=0.05, home=OTHER, typo-similarity=0.8, ... May be repeated.",
)  # fmt: skip
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html",
    help="Write an HTML report of the worst queries with their pictures.",
)  # fmt: skip
@click.option(
    "--worst", "count", default=20, show_default=True, type=click.IntRange(1, 1000),
    help="How many queries the report shows.",
)  # fmt: skip
@as_json
def evaluate(
    queries: Path | None, from_events: bool, filters: tuple[str, ...], against: tuple[str, ...],
    report: Path | None, count: int, as_json: bool, **query_fields: Any,
) -> None:  # fmt: skip
    """Measure recall on QUERIES, a CSV of photos or words and expected skus.

    The CSV has the columns query (a photo), words, or both, and expected_sku. With --filter, only
    products that pass are searched, and only their queries are run.

    --from-events needs searches with keys that were created with --record queries.
    """
    if (queries is None) != from_events:
        raise BadInput("Name either a file of QUERIES or --from-events.")
    template = Query(filters=parse(list(filters)), **query_fields)
    with App() as app:
        if queries is None:
            labelled = event_queries.labelled(app.events.labelled(), template.filters)
        else:
            labelled = labelled_queries.read_queries(queries)
        evaluation = labelled_queries.evaluate(
            app.engine, app.search, labelled, template, note, ThrottledProgress()
        )
        difference = (
            _compare(app.settings, evaluation, labelled, template, against) if against else None
        )
        if report is not None:
            _write_report(app, report, labelled, evaluation, template, count, difference)
    if as_json:
        print_json(evaluation.as_dict() | ({"against": difference.as_dict()} if difference else {}))
        return
    _print(evaluation, difference)


def _compare(
    settings: Settings,
    evaluation: Evaluation,
    labelled: Sequence[LabelledQuery],
    template: Query,
    against: Sequence[str],
) -> RunDifference:
    """Compare this run with the one that --against describes: a file, or other settings."""
    if len(against) == 1 and "=" not in against[0]:
        return labelled_queries.compare(evaluation, labelled_queries.read_run(Path(against[0])))
    changed_settings: dict[str, Any] = {}
    changed_fields: dict[str, str] = {}
    for assignment in against:
        name, sign, value = assignment.partition("=")
        name = name.strip().replace("-", "_").lower()
        if not sign or name not in (*QUERY_FIELDS, *Settings.model_fields):
            raise BadInput(
                f"--against {assignment!r} is neither one file of `lookalike eval --json` nor "
                f"NAME=VALUE with the name of a setting or one of {', '.join(QUERY_FIELDS)}."
            )
        (changed_fields if name in QUERY_FIELDS else changed_settings)[name] = value.strip()
    other_settings = settings.model_validate(settings.model_dump() | changed_settings)
    other_template = replace(template, **_parse_fields(changed_fields))
    with App(other_settings) as app:
        other = labelled_queries.evaluate(
            app.engine, app.search, labelled, other_template, note, ThrottledProgress()
        )
    return labelled_queries.compare(evaluation, other.ranks)


def _parse_fields(texts: dict[str, str]) -> dict[str, Any]:
    """Values of QUERY_FIELDS from text, by name. Raises BadInput."""
    booleans = {"true": True, "1": True, "false": False, "0": False}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            values[name] = booleans[text.lower()] if QUERY_FIELDS[name] is bool else float(text)
        except (KeyError, ValueError) as exc:
            kind = "true or false" if QUERY_FIELDS[name] is bool else "a distance such as 0.05"
            raise BadInput(f"--against {name}={text}: {name} is {kind}.") from exc
    return values


def _write_report(
    app: App, target: Path, labelled: Sequence[LabelledQuery], evaluation: Evaluation,
    template: Query, count: int, difference: RunDifference | None,
) -> None:  # fmt: skip
    cases = labelled_queries.cases(
        app.engine, app.search, app.sandbox.decode, labelled, worst(evaluation.outcomes, count),
        template,
    )  # fmt: skip
    title = f"{evaluation.queries} queries, recall@1 {evaluation.recall_at_1:.3f}"
    try:
        target.write_text(html_report(title, evaluation, cases, difference), encoding="utf-8")
    except OSError as exc:
        raise BadSource(f"{target} cannot be written: {exc.strerror or exc}.") from exc
    note(f"The {len(cases)} worst queries are in {target}.")


def _print(evaluation: Evaluation, difference: RunDifference | None) -> None:
    for name, value in evaluation.as_dict().items():
        if isinstance(value, float) and not name.endswith(("_low", "_high")):
            click.echo(f"{name:16} {value:.3f}{_interval(evaluation, name)}")
        elif isinstance(value, int):
            click.echo(f"{name:16} {value}")
    if len(evaluation.categories) > 1:
        click.echo()
        columns = ("category", "queries", "recall@1", "recall@10", "mrr")
        print_table(columns, [_row(each) for each in evaluation.categories])
    if difference is not None:
        click.echo(
            f"\nCompared with the other run, over {difference.queries} queries: "
            f"{difference.better} better, {difference.worse} worse, {difference.same} the same."
        )
        for name in ("recall_at_1", "recall_at_5", "recall_at_10"):
            change = getattr(difference, name)
            click.echo(f"{name:16} {change:+.3f}{_interval(difference, name, '+')}")


def _interval(figures: Evaluation | RunDifference, name: str, sign: str = "") -> str:
    """The confidence interval of a figure as text; empty where it has none."""
    low = getattr(figures, f"{name}_low", None)
    if low is None:
        return ""
    high = getattr(figures, f"{name}_high")
    return f"  (95 %: {low:{sign}.3f} to {high:{sign}.3f})"


def _row(figures: CategoryFigures) -> tuple[object, ...]:
    shares = (figures.recall_at_1, figures.recall_at_10, figures.mrr)
    return (figures.category or "none", figures.queries, *(f"{share:.3f}" for share in shares))
