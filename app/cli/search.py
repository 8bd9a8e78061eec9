"""`lookalike search`: products that look like a photo, like a product, or as words say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.config import Settings
from app.errors import BadImage, BadInput
from app.filters import parse
from app.values import Match, Query, SearchResult

filters_option = click.option(
    "--filter", "filters", multiple=True, metavar="COLUMN=VALUE",
    help="Only products where this holds; a column or an attribute. May be given again.",
)  # fmt: skip


@click.command()
@click.argument("photo", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--sku", help="More like this product.")
@click.option("--text", "words", help="Words, if the model has a text tower.")
@click.option("--k", "k", default=10, show_default=True, help="How many products.")
@filters_option
@as_json
def search(
    photo: Path | None, sku: str | None, words: str | None, k: int, filters: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Find the products that look like PHOTO (- for standard input), --sku or --text."""
    if [photo, sku, words].count(None) != 2:
        raise BadInput("Name exactly one of: a PHOTO, --sku SKU, --text WORDS.")
    settings = Settings()
    picture = _read(photo, settings.max_image_bytes) if photo is not None else None
    query = Query(picture=picture, sku=sku, words=words, k=k, filters=parse(list(filters)))
    with App(settings) as app:
        result = app.search.search(query)
    if as_json:
        print_json(as_dict(result))
        return
    print_matches(result)


def print_matches(result: SearchResult) -> None:
    """The matches as a table, and below it how they were found."""
    columns = ("#", "similarity", "means", "sku", "title", "brand", "category", "year", "price")
    if result.matches:
        print_table(columns, [_row(match) for match in result.matches])
    plan = result.plan
    if plan.shortfall:
        note(f"Fewer than asked: {plan.shortfall}.")
    took = plan.ms["total"] - plan.ms.get("load", 0.0)
    note(f"{plan.path}: {plan.reason}; {plan.model}, {took:.0f} ms")


def as_dict(result: SearchResult) -> dict[str, Any]:
    """The result for a program: `matches` and `plan`."""
    plan = result.plan
    return {
        "matches": [_fields(match) for match in result.matches],
        "plan": {
            "path": plan.path,
            "reason": plan.reason,
            "model": plan.model,
            "build": plan.build,
            "delta_rows": plan.delta_rows,
            "candidates": plan.candidates,
            "vanished": plan.vanished,
            "shortfall": plan.shortfall,
            "replica_lag_s": plan.replica_lag_s,
            "ms": dict(plan.ms),
        },
    }


def _fields(match: Match) -> dict[str, Any]:
    product = match.product
    return {
        "rank": match.rank,
        "sku": product.sku,
        "similarity": None if match.similarity is None else round(match.similarity, 6),
        "means": match.means,
        "title": product.title,
        "brand": product.brand,
        "category": product.category,
        "colour": product.colour,
        "year": product.year,
        "price": product.price,
        "currency": product.currency,
        "attributes": dict(product.attributes),
        "image": match.image,
    }


def _row(match: Match) -> tuple[object, ...]:
    product = match.product
    price = "" if product.price is None else f"{product.price:.2f} {product.currency or ''}".strip()
    return (
        match.rank, _number(match.similarity), match.means, product.sku, product.title,
        product.brand, product.category, product.year, price,
    )  # fmt: skip


def _number(similarity: float | None) -> str:
    return "" if similarity is None else f"{similarity:.3f}"


def _read(photo: Path, limit: int) -> bytes:
    """The bytes of a file of any size, no more of them than show that it is too large."""
    if str(photo) == "-":
        return sys.stdin.buffer.read(limit + 1)
    try:
        with photo.open("rb") as file:
            return file.read(limit + 1)
    except OSError as exc:
        raise BadImage(f"The picture {photo} cannot be read: {exc.strerror or exc}.") from exc
