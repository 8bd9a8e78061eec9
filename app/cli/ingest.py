"""`lookalike ingest` and `delete`: add products to the catalogue and delete them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from app.bootstrap import App
from app.cli.output import as_json, note, on_cluster, print_json
from app.cli.preview import print_preview
from app.errors import BadInput
from app.images.url import is_address
from ingest import prune_limit
from ingest.feeds.formats import AUTO, FORMATS
from ingest.load import LoadOptions, check_rejects, load, preview_load
from ingest.open_source import OpenSource, images_folder, open_source
from ingest.pipeline import IngestReport, RowWriter
from ingest.prefetch import ENCODERS
from ingest.preview import Preview
from ingest.prune_limit import PruneLimit
from ingest.rejects_file import STDOUT
from ingest.sources import SourceReject

PROGRESS_INTERVAL_S = 10.0
MAX_REASONS = 5
"""Reasons why pictures could not be fetched that are printed, the most frequent first."""


@click.command()
@click.argument("source")
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default=AUTO,
    show_default=True,
    help="Format of SOURCE, if it is not recognised by its content.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the pictures, if not that of the source.",
)
@click.option(
    "--rejects",
    type=click.Path(path_type=Path),
    help="Write what is refused to this CSV; '-' for standard output.",
)
@click.option(
    "--fail-on-rejects", metavar="N", type=click.IntRange(min=0),
    help="Exit code 1 if more than N rows or N pictures are refused. Default: all rows.",
)  # fmt: skip
@click.option("--prune", is_flag=True, help="Delete products that are not in the source.")
@click.option(
    "--prune-at-most", metavar="N|N%",
    help="Let --prune delete more than a tenth of the products: up to N, or a share.",
)  # fmt: skip
@click.option(
    "--force", is_flag=True,
    help="Go on where most fields are emptied, or most pictures taken, of what the source has.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@click.option("--encoding", default="utf-8", show_default=True, help="Encoding of CSV and TSV.")
@on_cluster
@as_json
def ingest(
    source: str, format_: str, images: Path | None, rejects: Path | None,
    fail_on_rejects: int | None, prune: bool, prune_at_most: str | None, force: bool,
    dry_run: bool, encoding: str, address: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Load SOURCE, a file, a feed or a folder of pictures, into the catalogue.

    SOURCE is a path or a web address. A CSV needs a column sku, and may have title, brand,
    category, colour, year, price, currency and images (several separated by |); other columns
    become attributes. JSON lines and Parquet have the same names. Feeds of Google Merchant Center
    (TSV, RSS, Atom) and exports of Shopify (CSV, bulk JSONL) are read as they are. Pictures are
    paths or web addresses.

    Of a product that exists, a column that is left out keeps what is stored, and an empty field
    clears it. In a folder, every picture becomes a product: its sku is the file name, its category
    the folder; of a product that exists only the pictures change.

    On a cluster, every node must reach the database and the folder of the pictures, and have the
    models.

    Running it again writes only what has changed. A bad row or picture is refused with its reason
    and does not stop the others.
    """
    if prune_at_most is not None and not prune:
        raise click.UsageError("--prune-at-most limits what --prune deletes; add --prune.")
    if rejects == STDOUT and (as_json or dry_run):
        other = "--json" if as_json else "--dry-run"
        raise click.UsageError(f"{other} and --rejects - both write to standard output.")
    if dry_run and address is not None:
        raise click.UsageError("--dry-run runs here; leave out --on.")
    limit = PruneLimit() if prune_at_most is None else prune_limit.parse(prune_at_most)
    options = LoadOptions(images, rejects, encoding, prune, limit, force, format_)
    if dry_run:
        _preview(source, options, fail_on_rejects, as_json=as_json)
        return
    reasons: Counter[str] = Counter()
    with (
        App(streams=ENCODERS) as app,
        _opened(app, source, options) as opened,
        _writer(app, address, source, images) as writer,
        _progress() as progress,
    ):
        report = load(
            app.engine, app.catalog, app.encoders, app.limits, opened, options,
            writer=writer, progress=progress, notify=note,
            rejected=lambda each: _count(reasons, each),
        )  # fmt: skip
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo(summary(report), err=rejects == STDOUT)
    _note_rejects(report.rejected, report.images_rejected, rejects)
    _note_reasons(reasons)
    _check_refused(report, fail_on_rejects)


@contextmanager
def _writer(
    app: App, address: str | None, source: str, images: Path | None
) -> Iterator[RowWriter | None]:
    """Writes the rows on a cluster; None: in this process."""
    if address is None:
        yield None
        return
    from app.cluster import job, row_writer, session

    described = job.describe(app, address)
    with session.connect(address, described.cpus, note) as cluster:
        yield row_writer.ClusterWriter(cluster, described, images_folder(source, images))


@contextmanager
def _opened(app: App, source: str, options: LoadOptions) -> Iterator[OpenSource]:
    """The source, whose downloads end with the block."""
    check_rejects(options.rejects, source)
    opened = open_source(
        source, app.settings, images=options.images, encoding=options.encoding,
        format=options.format,
    )  # fmt: skip
    with closing(opened.pictures):
        yield opened


def _count(reasons: Counter[str], reject: SourceReject) -> None:
    """Count why a picture with a web address was refused."""
    if reject.image is not None and is_address(reject.image):
        reasons[reject.reason] += 1


def _note_reasons(reasons: Counter[str]) -> None:
    for reason, count in reasons.most_common(MAX_REASONS):
        note(f"{count} of these pictures: {reason}")


def _check_refused(run: IngestReport | Preview, most: int | None) -> None:
    """Raise BadInput if more was refused than may be; without a number, if every row was."""
    if most is None:
        if run.read and run.rejected == run.read:
            raise BadInput("Every row was refused, so nothing of this source is in the catalogue.")
    elif max(run.rejected, run.images_rejected) > most:
        raise BadInput(
            f"More was refused than --fail-on-rejects {most} allows. The other rows were handled; "
            "correct the refused ones and run it again."
        )


def _preview(source: str, options: LoadOptions, most: int | None, *, as_json: bool) -> None:
    with App() as app, _opened(app, source, options) as opened:
        result = preview_load(app.engine, app.catalog, app.encoders, app.limits, opened, options)
    if as_json:
        print_json(result.as_dict())
    else:
        print_preview(result)
    _note_rejects(result.rejected, result.images_rejected, options.rejects)
    if result.refused:
        raise BadInput(result.refused)
    _check_refused(result, most)


def _note_rejects(rows: int, pictures: int, rejects: Path | None) -> None:
    if rows or pictures:
        named = "standard output" if rejects == STDOUT else rejects
        where = f"see {named}" if rejects else "name a file with --rejects to see which and why"
        refused = f"{_counted(rows, 'row')} and {_counted(pictures, 'picture')} were refused"
        note(f"{refused}; {where}.")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@click.command()
@click.argument("skus", nargs=-1, required=True, metavar="SKU...")
def delete(skus: tuple[str, ...]) -> None:
    """Delete products, and the pictures that no other product shows."""
    with App() as app:
        deleted = app.catalog.delete(list(dict.fromkeys(skus)))
    note(f"{deleted} deleted.")


def summary(report: IngestReport) -> str:
    """The counts of a run, and how it is undone if it can be."""
    rate = report.images_embedded / report.seconds if report.seconds else 0.0
    deleted = f", {report.deleted} deleted" if report.deleted else ""
    downloads = ""
    if report.images_downloaded or report.images_not_modified:
        downloads = (
            f", {report.images_downloaded} downloaded, {report.images_not_modified} unchanged "
            "on the web"
        )
    undo = f" `lookalike undo {report.run}` takes it back." if report.undoable else ""
    return (
        f"{report.read} rows read: {report.added} added, {report.updated} updated, "
        f"{report.unchanged} unchanged, {report.rejected} rejected{deleted}. "
        f"{report.images_embedded} pictures embedded, {report.images_reused} reused{downloads}, "
        f"in {report.seconds:.1f} s ({rate:.0f} pictures/s).{undo}"
    )


class _PlainProgress:
    """Prints a line of progress every PROGRESS_INTERVAL_S seconds, for logs."""

    def __init__(self) -> None:
        self._next = PROGRESS_INTERVAL_S

    def __call__(self, report: IngestReport, _rows: int) -> None:
        if report.seconds >= self._next:
            self._next = report.seconds + PROGRESS_INTERVAL_S
            note(f"{report.read} rows after {report.seconds:.0f} s")


class _ProgressBar:
    """A progress bar with rate and remaining time, for terminals."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("Ingest", total=None, rate="")

    def __call__(self, report: IngestReport, rows: int) -> None:
        rate = f"{report.read / max(report.seconds, 0.001):.0f} rows/s"
        self._progress.update(self._task, total=rows, completed=report.read, rate=rate)


@contextmanager
def _progress() -> Iterator[_PlainProgress | _ProgressBar]:
    if not sys.stderr.isatty():
        yield _PlainProgress()
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _ProgressBar(progress)
