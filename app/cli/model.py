"""`lookalike model`: several models side by side, and which of them searches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.encoders.base import AUTO, EMBEDDED, INT8
from app.errors import LookalikeError
from app.evaluation import labelled_queries
from app.evaluation.html_report import beside as side_by_side
from app.evaluation.labelled_queries import LabelledQueries
from app.evaluation.metrics import Difference, Evaluation, apart, overlap
from app.models.backfill import BackfillReport, embed
from app.models.lifecycle import ModelChange
from app.types import Query
from ingest.originals import Originals, check_folders, folders_of

SHOWN = 20
"""Queries that a report shows."""


@click.group()
def model() -> None:
    """The models of this catalogue: change from one to another while searches go on."""


@model.command("list")
@as_json
def list_(as_json: bool) -> None:
    """Show every model and what it has."""
    with App() as app:
        found = app.lifecycle.models()
    rows = [
        {
            "model": each.model.name,
            "revision": each.model.revision[:12],
            "dimensions": each.model.dim,
            "state": "active" if each.active else "kept up to date" if each.maintained else "idle",
            "embeddings": each.embeddings,
            "pictures": each.pictures,
            "build": each.build,
        }
        for each in found
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(tuple(rows[0]), [list(row.values()) for row in rows])


@model.command()
@click.argument("name")
@click.option("--revision", help="Commit of a hub model.")
def add(name: str, revision: str | None) -> None:
    """Record the model NAME ('embedded', a hub name or a folder) beside the active one.

    From now on new pictures get an embedding under it too.
    """
    with App() as app:
        found = app.lifecycle.add(_absolute(name), revision)
    note(f"{found.name} ({found.dim} dimensions) is kept up to date from now on.")
    note(f"Next: `lookalike model embed {found.name}` for the pictures that are there already.")


@model.command("embed")
@click.argument("name")
@click.option(
    "--images", multiple=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the pictures as they were ingested; else where earlier ingests read them.",
)  # fmt: skip
@as_json
def embed_(name: str, images: tuple[Path, ...], as_json: bool) -> None:
    """Embed what NAME has no embedding of yet; it may be stopped and begun again."""
    with App() as app:
        found = app.lifecycle.model(name)
        encoder = app.encoders.of(found.id)
        folders = list(images) or folders_of(app.catalog.ingest_sources())
        check_folders(folders)
        originals = Originals(folders, app.limits, encoder.input_side)
        told = None if as_json else _told
        done = embed(app.engine, found, encoder, originals.find, told, note)
    if as_json:
        print_json(done)
    for reason in done.reasons:
        note(reason)
    note(f"{done.embedded} pictures embedded in {done.seconds:.1f} s, {done.left} left.")
    if done.left:
        raise LookalikeError(
            f"{done.left} pictures have no embedding under {name} yet. Name the folder of their "
            "files with --images, or ingest them again."
        )


@model.command()
@click.argument("name")
@click.argument("other")
@click.argument("queries", type=click.Path(path_type=Path))
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html",
    help="Write what they answer most differently, in pictures, side by side.",
)  # fmt: skip
@as_json
def compare(name: str, other: str, queries: Path, report: Path | None, as_json: bool) -> None:
    """Measure two models on labelled QUERIES (columns query and expected_sku)."""
    labelled = labelled_queries.read_queries(queries)
    with App() as app:
        asked = [Query(model_id=app.lifecycle.model(each).id) for each in (name, other)]
        ours, theirs = (
            labelled_queries.evaluate(app.engine, app.search, labelled, how, note) for how in asked
        )
        beside = labelled_queries.compare(ours, theirs.ranks)
        if report is not None:
            _write(app, report, (name, other), labelled, asked, (ours, theirs), beside)
    same = overlap(ours, theirs)
    if as_json:
        print_json({name: ours.as_dict(), other: theirs.as_dict(),
                    "difference": beside.as_dict(), "overlap_at_10": same})  # fmt: skip
        return
    rows = [_figures(name, ours), _figures(other, theirs)]
    print_table(("model", "queries", "recall@1", "recall@5", "recall@10", "mrr", "p50 ms"), rows)
    click.echo(
        f"{name} is better in {beside.better} queries, worse in {beside.worse}, the same in "
        f"{beside.same}; recall@1 {beside.recall_at_1:+.3f} (95 %: {beside.recall_at_1_low:+.3f} "
        f"to {beside.recall_at_1_high:+.3f}). Of ten products found, {10 * same:.1f} are the same."
    )


def _write(
    app: App,
    report: Path,
    names: tuple[str, str],
    labelled: Sequence[LabelledQueries],
    asked: Sequence[Query],
    found: tuple[Evaluation, Evaluation],
    difference: Difference,
) -> None:
    apart_ = apart(found[0].outcomes, found[1].outcomes, SHOWN)
    cases = [
        labelled_queries.cases(app.engine, app.search, app.sandbox.decode, labelled, outcomes, how)
        for outcomes, how in zip(zip(*apart_, strict=True), asked, strict=True)
    ] if apart_ else [[], []]  # fmt: skip
    pairs = list(zip(*cases, strict=True))
    report.write_text(side_by_side(names, found, pairs, difference), encoding="utf-8")


FORCE = click.option(
    "--force", "forced", metavar="REASON",
    help="Do it without full coverage or an index; the reason is recorded.",
)  # fmt: skip


@model.command()
@click.argument("name")
@FORCE
def activate(name: str, forced: str | None) -> None:
    """Let NAME answer searches from now on.

    It must have an embedding of every picture and a published index.
    """
    with App() as app:
        _say(app.lifecycle.activate(name, forced=forced))


@model.command()
@FORCE
def rollback(forced: str | None) -> None:
    """Activate the model that was active before."""
    with App() as app:
        _say(app.lifecycle.rollback(forced=forced))


@model.command()
@click.argument("name")
@click.confirmation_option(prompt="Delete its embeddings and builds?")
def drop(name: str) -> None:
    """Delete the model NAME with its embeddings and builds; searches go on.

    Of several revisions of NAME say which: NAME@REVISION.
    """
    with App() as app:
        dropped = app.lifecycle.drop(name)
    note(f"{dropped.name} and its embeddings are gone.")


def _absolute(name: str) -> str:
    """A folder by its whole path, so that other processes find it too."""
    if name.removesuffix(INT8) in (AUTO, EMBEDDED):
        return name
    for ending in ("", INT8):
        folder = Path(name.removesuffix(ending)).expanduser()
        if name.endswith(ending) and folder.is_dir():
            return f"{folder.resolve()}{ending}"
    return name


def _told(report: BackfillReport) -> None:
    note(
        f"{report.embedded} embedded, {report.failed} not, {report.left} left "
        f"after {report.seconds:.0f} s"
    )


def _say(change: ModelChange) -> None:
    if change.former == change.active:
        note(f"{change.active.name} is the active model already.")
        return
    former = change.former.name if change.former else "none"
    note(f"{change.active.name} answers searches from now on; before it was {former}.")
    if change.forced:
        note(f"Forced: {change.forced}. Searches are complete only once it has all embeddings.")


def _figures(name: str, found: Evaluation) -> tuple[object, ...]:
    shares = (found.recall_at_1, found.recall_at_5, found.recall_at_10, found.mrr)
    return (name, found.queries, *(f"{share:.3f}" for share in shares), f"{found.p50_ms:.1f}")
