"""`lookalike demo`: from an empty folder to search results, with a drawn catalogue."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import click

from app.bootstrap import App
from app.cli.output import note
from app.cli.search_output import print_matches
from app.cli.serve_page import serve
from app.errors import BadInput
from app.images.decoding import decode
from app.images.thumbnails import open_thumbnail
from app.types import Query, SearchResult
from ingest.demo import draw_catalogue
from ingest.demo.contact_sheet import SheetPicture, SheetRow, contact_sheet
from ingest.load import LoadOptions, load
from ingest.prune_limit import UNLIMITED

SKU_PREFIX = "DEMO-"
MAX_SEARCHES = 3
MATCHES = 6


@click.command()
@click.option(
    "--products", default=320, show_default=True, type=click.IntRange(32, 5000),
    help="How many products to draw.",
)  # fmt: skip
@click.option("--page/--no-page", "open_page", default=True, help="Serve the pages at the end.")
@click.option(
    "--port", default=8501, show_default=True, type=click.IntRange(1, 65535),
    help="TCP port of the pages.",
)  # fmt: skip
def demo(products: int, open_page: bool, port: int) -> None:
    """Draw a demo catalogue, ingest, index, search and serve it.

    All data is stored in LOOKALIKE_HOME; choose a separate folder for the demo.
    """
    with App() as app:
        folder = app.settings.home / "demo"
        _print_step("Start the database and create the tables")
        note(app.initialise())
        _check_database(app)
        _print_step(f"Draw {products} products")
        folder.mkdir(parents=True, exist_ok=True)
        source = draw_catalogue(folder, products=products)
        _print_step("Ingest them")
        # All products are the demo's own, so a smaller or another catalogue replaces them.
        report = load(
            app.engine, app.catalog, app.encoders, app.limits, source,
            LoadOptions(prune=True, prune_limit=UNLIMITED, force=True),
        )  # fmt: skip
        note(f"{report.added} added, {report.unchanged} unchanged, {report.seconds:.1f} s")
        _print_step("Build the index")
        build = app.indexer.rebuild()
        note(f"build {build.id}: {build.kind}, {build.rows} rows, recall@10 {build.recall_at_10}")
        rows = [_search(app, path) for path in _queries(folder)]
        sheet = folder / "contact-sheet.png"
        contact_sheet(rows, sheet)
    click.echo(f"\nQuery photos and their matches: {sheet}")
    if open_page:
        click.echo(f"The page: http://localhost:{port} (Ctrl-C ends it)")
        serve("localhost", port)


def _check_database(app: App) -> None:
    """Refuse a database with other products, because the demo deletes what it did not draw."""
    others = app.catalog.count_without_prefix(SKU_PREFIX)
    if others:
        raise BadInput(
            f"This database has {others} products that do not belong to the demo, and the "
            "demo would delete them. Choose an empty folder with LOOKALIKE_HOME, and unset "
            "LOOKALIKE_DATABASE_URL."
        )


def _print_step(step: str) -> None:
    click.secho(f"\n{time.strftime('%H:%M:%S')} {step}", bold=True)


def _queries(folder: Path) -> list[Path]:
    """A few query photos, evenly spaced in the list so that they show different products."""
    with (folder / "queries.csv").open(encoding="utf-8", newline="") as file:
        paths = [folder / row["query"] for row in csv.DictReader(file)]
    return paths[:: max(1, len(paths) // MAX_SEARCHES)][:MAX_SEARCHES]


def _search(app: App, photo: Path) -> SheetRow:
    _print_step(f"Search with {photo}")
    data = photo.read_bytes()
    result = app.search.search(Query(picture=data, k=MATCHES, fold=True))
    print_matches(result)
    return SheetRow(
        SheetPicture(decode(data), ("Query photo", photo.name)), _sheet_pictures(result)
    )


def _sheet_pictures(result: SearchResult) -> tuple[SheetPicture, ...]:
    return tuple(
        SheetPicture(
            open_thumbnail(match.thumbnail),
            (match.product.title, f"{match.product.brand}, {match.product.year}"),
            match.similarity,
        )
        for match in result.matches
    )
