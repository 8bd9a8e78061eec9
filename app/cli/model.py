"""`lookalike model`: manage embedding models and choose the one that searches use."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.bootstrap import App
from app.cli.output import ThrottledProgress, as_json, note, on_cluster, print_json, print_table
from app.encoders.base import AUTO, EMBEDDED, split_variant
from app.encoders.embedded_versions import offer, outdated
from app.encoders.loading import automatic, choose_encoder
from app.encoders.presets import PRESETS, full_name
from app.errors import BadInput, LookalikeError
from app.evaluation import labelled_queries
from app.evaluation.html_report import comparison_report as html_comparison
from app.evaluation.labelled_queries import LabelledQuery
from app.evaluation.metrics import Evaluation, RunDifference, most_different, overlap
from app.models.backfill import BackfillProgress, BackfillReport, embed
from app.models.lifecycle import ModelChange
from app.types import Model, Query

if TYPE_CHECKING:
    from app.evaluation.model_fit import Gain
from ingest.originals import Originals, check_folders, folders_of

REPORT_QUERIES = 20
"""How many queries a report shows."""


@click.group()
def model() -> None:
    """Add, embed, compare, activate and drop embedding models."""


@model.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List all models with their state, embeddings and index build."""
    with App() as app:
        models = app.lifecycle.models()
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
        for each in models
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(tuple(rows[0]), [list(row.values()) for row in rows])
    if models and models[0].active and outdated(models[0].model):
        note(offer(models[0].model))


@model.command()
@as_json
def presets(as_json: bool) -> None:
    """List models with short names: their commit, licence, purpose and published figures."""
    if as_json:
        print_json(PRESETS)
        return
    for preset in PRESETS:
        click.echo(f"{preset.name}: {preset.model}")
        click.echo(
            f"  {preset.dim} dimensions, {preset.megabytes} MB, {preset.licence}; "
            f"commit {preset.commit}"
        )
        click.echo(f"  Suits {preset.suits}. Published: {preset.published}.")


@model.command()
@click.argument("name")
@click.option("--revision", help="Commit of a model of the hub.")
def add(name: str, revision: str | None) -> None:
    """Add the model NAME next to the active one: a preset, 'embedded', a hub name or a folder.

    From then on, new pictures get an embedding of this model too.
    """
    with App() as app:
        added = app.lifecycle.add(_absolute(name), revision)
    note(f"{added.name} ({added.dim} dimensions) is kept up to date from now on.")
    note(f"Next: `lookalike model embed {added.name}` for the pictures that are already stored.")


@model.command()
@click.argument("name")
@click.option("--revision", help="Commit of a model of the hub.")
def fetch(name: str, revision: str | None) -> None:
    """Download the model NAME and compile it, for use without a network; needs no database."""
    if automatic(name):
        raise BadInput("'auto' is a choice for one machine. Name a model, such as 'embedded'.")
    note(choose_encoder(_absolute(name), revision=revision).note)


@model.command("embed")
@click.argument("name")
@click.option(
    "--images", multiple=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the ingested pictures. Default: the folders of earlier ingests.",
)  # fmt: skip
@on_cluster
@as_json
def embed_(name: str, images: tuple[Path, ...], address: str | None, as_json: bool) -> None:
    """Embed the pictures that have no embedding of NAME; it can be stopped and run again.

    On a cluster, every node must reach the database and the folders, and have the model.
    """
    with App() as app:
        model = app.lifecycle.model(name)
        sources = app.catalog.ingest_sources()
        folders = list(images) or folders_of(sources)
        check_folders(folders, sources)
        progress = None if as_json else _print_progress
        run = _embed_here if address is None else partial(_embed_on, address)
        report = run(app, model, folders, progress)
    if as_json:
        print_json(report)
    for reason in report.reasons:
        note(reason)
    note(f"{report.embedded} pictures embedded in {report.seconds:.1f} s, {report.left} left.")
    if report.left:
        raise LookalikeError(
            f"{report.left} pictures still have no embedding of {name}. Name the folder of their "
            "files with --images, or ingest them again."
        )


def _embed_here(
    app: App, model: Model, folders: Sequence[Path], progress: BackfillProgress | None
) -> BackfillReport:
    # Imported here, because only this command downloads.
    from ingest.open_source import download_cache, remote_pictures

    encoder = app.encoders.for_model(model.id)
    with closing(remote_pictures(app.settings, download_cache(app.settings))) as remote:
        originals = Originals(folders, app.limits, encoder.input_side, remote)
        return embed(app.engine, model, encoder, originals.find, progress, note)


def _embed_on(
    address: str,
    app: App,
    model: Model,
    folders: Sequence[Path],
    progress: BackfillProgress | None,
) -> BackfillReport:
    from app.cluster import backfill, job, session

    described = job.describe(app, address)
    with session.connect(address, described.cpus, note) as cluster:
        return backfill.embed(app, cluster, described, model, folders, progress, note)


@model.command()
@click.argument("name")
@click.option(
    "--from", "source", required=True, type=click.Choice(("verdicts", "events", "catalogue")),
    help="What is known: products people called the same, photos whose results were clicked, or "
    "the products with several pictures.",
)  # fmt: skip
@click.option("--base", metavar="MODEL", help="The model to improve. Default: the active one.")
@as_json
def fit(name: str, source: str, base: str | None, as_json: bool) -> None:
    """Fit the active model to this catalogue, as the new model NAME.

    A linear map after the model is fitted to photos whose products are known. Nothing is kept
    unless held-out photos find their products more often than by chance. It takes minutes.
    """
    # Imported here, because no other command needs them.
    from app.evaluation import fit_samples, model_fit

    with App() as app:
        app.lifecycle.check_new_fit(name)
        model = app.lifecycle.model(base) if base else app.lifecycle.active()
        note(f"Reading photos whose products are known, under {model.name}.")
        samples = fit_samples.collect(
            app.engine, model, source, lambda: app.encoders.for_model(model.id)
        )
        report = model_fit.fit(samples, note)
        figures = {"base": model.name, "source": source} | report.as_dict()
        if report.weights is not None:
            app.lifecycle.add_fitted(name, model, report.weights, figures)
    if as_json:
        print_json(figures)
    else:
        click.echo(f"{report.photos} photos of {report.products} products, found in "
                   f"{report.gallery}; recall@1 on held-out photos:")  # fmt: skip
        click.echo(f"  of products with other photos in the fit: {_gain(report.known)}")
        click.echo(f"  of products without:                      {_gain(report.new)}")
    if report.weights is None:
        raise LookalikeError(
            "Nothing was kept: a fit does not find the products of held-out photos more often "
            "beyond chance, or it finds new products less often. More photos may help."
        )
    note(
        f"{name} is kept up to date from now on. Next: `lookalike model embed {name}`, "
        f"`lookalike index rebuild --model {name}`, `lookalike model compare {name} {model.name} "
        f"QUERIES`, and `lookalike model activate {name}`."
    )


def _gain(gain: Gain) -> str:
    return (
        f"{gain.before:.3f} to {gain.after:.3f} "
        f"(95 % of the difference: {gain.low:+.3f} to {gain.high:+.3f})"
    )


@model.command()
@click.argument("name")
@click.argument("other")
@click.argument("queries", type=click.Path(path_type=Path))
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html",
    help="Write an HTML report of the queries whose results differ most.",
)  # fmt: skip
@as_json
def compare(name: str, other: str, queries: Path, report: Path | None, as_json: bool) -> None:
    """Compare two models on labelled QUERIES, a CSV with the columns query and expected_sku."""
    labelled = labelled_queries.read_queries(queries)
    with App() as app:
        templates = [Query(model_id=app.lifecycle.model(each).id) for each in (name, other)]
        ours, theirs = (
            labelled_queries.evaluate(
                app.engine, app.search, labelled, template, note, ThrottledProgress()
            )
            for template in templates
        )
        difference = labelled_queries.compare(ours, theirs.ranks)
        if report is not None:
            names = (name, other)
            _write_report(app, report, names, labelled, templates, (ours, theirs), difference)
    shared = overlap(ours, theirs)
    if as_json:
        print_json({name: ours.as_dict(), other: theirs.as_dict(),
                    "difference": difference.as_dict(), "overlap_at_10": shared})  # fmt: skip
        return
    rows = [_row(name, ours), _row(other, theirs)]
    print_table(("model", "queries", "recall@1", "recall@5", "recall@10", "mrr", "p50 ms"), rows)
    click.echo(
        f"{name} is better in {difference.better} queries, worse in {difference.worse}, the same "
        f"in {difference.same}; recall@1 {difference.recall_at_1:+.3f} "
        f"(95 %: {difference.recall_at_1_low:+.3f} to {difference.recall_at_1_high:+.3f}). "
        f"Of ten products found, {10 * shared:.1f} are the same."
    )


def _write_report(
    app: App,
    target: Path,
    names: tuple[str, str],
    labelled: Sequence[LabelledQuery],
    templates: Sequence[Query],
    evaluations: tuple[Evaluation, Evaluation],
    difference: RunDifference,
) -> None:
    ours, theirs = evaluations
    outcome_pairs = most_different(ours.outcomes, theirs.outcomes, REPORT_QUERIES)
    cases = [
        labelled_queries.cases(
            app.engine, app.search, app.sandbox.decode, labelled, outcomes, template
        )
        for outcomes, template in zip(zip(*outcome_pairs, strict=True), templates, strict=True)
    ] if outcome_pairs else [[], []]  # fmt: skip
    case_pairs = list(zip(*cases, strict=True))
    html = html_comparison(names, evaluations, case_pairs, difference)
    target.write_text(html, encoding="utf-8")


FORCE = click.option(
    "--force", "forced_reason", metavar="REASON",
    help="Activate it without all embeddings or without an index; REASON is recorded.",
)  # fmt: skip


@model.command()
@click.argument("name")
@FORCE
def activate(name: str, forced_reason: str | None) -> None:
    """Make NAME the active model, which answers searches.

    It needs an embedding of every picture and a published index.
    """
    with App() as app:
        _print_change(app.lifecycle.activate(name, forced_reason=forced_reason))


@model.command()
@FORCE
def rollback(forced_reason: str | None) -> None:
    """Activate the previously active model."""
    with App() as app:
        _print_change(app.lifecycle.rollback(forced_reason=forced_reason))


@model.command()
@click.argument("name")
@click.confirmation_option(prompt="Delete its embeddings and builds?")
def drop(name: str) -> None:
    """Delete the model NAME with its embeddings and builds; searches go on.

    If there are several revisions of NAME, write NAME@REVISION.
    """
    with App() as app:
        dropped = app.lifecycle.drop(name)
    note(f"{dropped.name} and its embeddings were deleted.")


def _absolute(name: str) -> str:
    """The absolute path of a folder, so that other processes find it; other names as they are."""
    plain, suffix = split_variant(name)
    if plain in (AUTO, EMBEDDED) or full_name(name) != name:
        return name
    for ending, path in (("", name), (suffix, plain)):
        folder = Path(path).expanduser()
        if folder.is_dir():
            return f"{folder.resolve()}{ending}"
    return name


def _print_progress(report: BackfillReport) -> None:
    rate = report.embedded / report.seconds if report.seconds else 0.0
    remaining = f"; {report.left / rate:.0f} s to go" if rate and report.left else ""
    note(
        f"{report.embedded} embedded, {report.failed} failed, {report.left} left "
        f"after {report.seconds:.0f} s ({rate:.0f} pictures/s{remaining})"
    )


def _print_change(change: ModelChange) -> None:
    if change.former == change.active:
        note(f"{change.active.name} is already the active model.")
        return
    former = change.former.name if change.former else "none"
    note(f"{change.active.name} answers searches from now on; before, it was {former}.")
    if change.forced_reason:
        note(
            f"Forced: {change.forced_reason}. Searches are incomplete until it has all embeddings."
        )


def _row(name: str, figures: Evaluation) -> tuple[object, ...]:
    shares = (figures.recall_at_1, figures.recall_at_5, figures.recall_at_10, figures.mrr)
    return (name, figures.queries, *(f"{share:.3f}" for share in shares), f"{figures.p50_ms:.1f}")
