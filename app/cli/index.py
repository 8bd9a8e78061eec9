"""`lookalike index`: build, audit and list FAISS indexes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from app.bootstrap import App
from app.cli.output import ThrottledProgress, as_json, note, on_cluster, print_json, print_table
from app.encoders.presets import full_name
from app.errors import LookalikeError
from app.evaluation.recall_audit import audit as measure_recall
from app.types import Build


@click.group()
def index() -> None:
    """Build, audit and list FAISS indexes."""


@index.command()
@click.option("--model", metavar="NAME", help="Name of the model. Default: the active one.")
@on_cluster
@as_json
def rebuild(model: str | None, address: str | None, as_json: bool) -> None:
    """Build an index of all committed embeddings, measure its recall and publish it.

    On a cluster, tasks assign and encode the vectors of an index in inverted lists.
    """
    name = full_name(model) if model else None
    with App() as app:
        build = app.indexer.rebuild(name) if address is None else _rebuild_on(address, app, name)
    if as_json:
        print_json(_as_dict(build))
    else:
        recall = "not measured" if build.recall_at_10 is None else f"{build.recall_at_10:.3f}"
        click.echo(
            f"Build {build.id} {build.state}: {build.kind}, {build.rows} rows, "
            f"recall@10 {recall}, {build.size / 1e6:.1f} MB, {build.seconds:.2f} s."
        )
    if build.state != "published":
        raise LookalikeError(f"Build {build.id} was not published: {build.reason}.")


def _rebuild_on(address: str, app: App, name: str | None) -> Build:
    from app.cluster import fill, job, session

    described = job.describe(app, address)
    with session.connect(address, described.cpus, note) as cluster:
        progress = ThrottledProgress()
        return app.indexer.rebuild(name, fill=fill.ClusterFill(cluster, described, progress))


@index.command()
@click.option("--queries", default=200, show_default=True, type=click.IntRange(1, 10_000))
@as_json
def audit(queries: int, as_json: bool) -> None:
    """Measure the recall of the published build against exact scans of the same snapshot."""
    with App() as app:
        result = measure_recall(app.engine, app.files, app.settings, queries)
        goal = app.settings.recall_goal
    if as_json:
        print_json(result.as_dict())
    else:
        click.echo(
            f"Build {result.build}: recall@10 {result.recall_at_10:.3f}, recall@50 "
            f"{result.recall_at_50:.3f}, filtered recall@10 {result.recall_filtered:.3f} over "
            f"{result.queries} queries, {result.by_faiss} by FAISS."
        )
    if result.recall_at_10 < goal:
        raise LookalikeError(
            f"recall@10 is below the goal of {goal}; run `lookalike index rebuild`."
        )


@index.command()
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 1000))
@as_json
def status(limit: int, as_json: bool) -> None:
    """List the latest builds, newest first."""
    with App() as app:
        builds = app.indexer.latest(limit)
    if as_json:
        print_json([_as_dict(build) for build in builds])
        return
    if not builds:
        click.echo("No index has been built yet; run `lookalike index rebuild`.")
        return
    columns = ("build", "state", "kind", "rows", "recall_at_10", "seconds", "finished_at", "reason")
    rows = [_as_dict(build) for build in builds]
    print_table(columns, [[row[name] for name in columns] for row in rows])


def _as_dict(build: Build) -> dict[str, Any]:
    fields = asdict(build)
    keys = ("kind", "rows", "recall_at_10", "seconds", "state", "reason", "size", "sha256")
    recall = build.recall_at_10
    return {
        "build": build.id,
        **{key: fields[key] for key in keys},
        "recall_at_10": None if recall is None else round(recall, 4),
        "parameters": dict(build.parameters),
        "finished_at": build.finished_at and build.finished_at.isoformat(timespec="seconds"),
    }
