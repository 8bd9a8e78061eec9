"""`lookalike search`: find products by photo, by product or by words."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.config import Settings
from app.errors import BadImage, BadInput
from app.search.confidence import NO_CLOSE_MATCH
from app.search.explain import (
    price_text,
    reading_texts,
    same_picture_text,
    similar_number,
    why_dropped,
    words_text,
)
from app.search.filters import parse
from app.search.result_fields import duplicate_fields, facet_fields
from app.search.vector_cache import VectorCache
from app.types import Folded, Match, Query, Region, RegionMatches, SearchResult, WordsReading

if TYPE_CHECKING:
    from app.search.facets import Facets  # importing it loads the index

filters_option = click.option(
    "--filter", "filters", multiple=True, metavar="CONDITION",
    help="Only products that meet the condition: brand=Kestrel, year>=2019, price=10..20, or an"
    " attribute such as material=wool. Repeating a name allows another value.",
)  # fmt: skip

MAX_PRINTED = 10
"""Values of a facet that are printed; the JSON output has all."""

PATH = click.Path(path_type=Path, allow_dash=True)


class RegionType(click.ParamType[Region]):
    """A region as fractions (0 to 1) of the sides of a picture, as in `0.1,0.2,0.6,0.9`."""

    name = "left,top,right,bottom"

    def convert(self, value: Any, param: Any, ctx: Any) -> Region:
        try:
            left, top, right, bottom = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not four numbers such as 0.1,0.2,0.6,0.9.", param, ctx)
        return left, top, right, bottom


@click.command()
@click.argument("photo", required=False, type=PATH)
@click.option("--sku", help="Find products similar to this product.")
@click.option(
    "--text", "words", help="Words to search for; with a PHOTO or --sku, what should be different."
)
@click.option("--k", "k", default=10, show_default=True, help="Maximum number of products.")
@filters_option
@click.option(
    "--also", multiple=True, type=PATH, help="Another photo of the same object; may be repeated."
)
@click.option(
    "--region", type=RegionType(), help="Use only this part of PHOTO (fractions of its sides)."
)
@click.option(
    "--objects", type=click.Choice(["on", "off"]), default="on", show_default=True,
    help="Search PHOTO by the objects in it too, unless the whole has a match beyond doubt.",
)  # fmt: skip
@click.option("--weight", default=0.5, show_default=True, help="Weight of the words, 0 to 1.")
@click.option(
    "--words-by",
    type=click.Choice(["model", "catalogue"]),
    help="Interpret the words by the model or by full-text search. Default: both.",
)
@click.option(
    "--not-like",
    multiple=True,
    type=PATH,
    help="A photo that results should not resemble; may be repeated.",
)
@click.option("--not-text", help="Words that should not describe the results.")
@click.option(
    "--not-weight",
    default=0.5,
    show_default=True,
    help="Weight of --not-like and --not-text, 0 to 1.",
)
@click.option(
    "--fold/--no-fold", default=True, help="Show duplicate products as one (the default)."
)
@click.option(
    "--near-query", type=float, help="Drop products at most this distance from the query."
)
@click.option(
    "--near-match",
    type=float,
    help="Drop products at most this distance from a better match.",
)
@click.option(
    "--min-similarity", type=float, help="Drop products less similar than this (-1 to 1)."
)
@click.option(
    "--shown", multiple=True, help="A sku of an earlier page, to be left out; may be repeated."
)
@click.option(
    "--facets",
    "with_facets",
    is_flag=True,
    help="Also count the values that the results can be filtered by.",
)
@as_json
def search(
    photo: Path | None, also: tuple[Path, ...], not_like: tuple[Path, ...], words: str | None,
    not_text: str | None, objects: str, weight: float, not_weight: float, filters: tuple[str, ...],
    as_json: bool, with_facets: bool, **query_fields: Any,
) -> None:  # fmt: skip
    """Find products similar to PHOTO, --sku or --text.

    With - as PHOTO it is read from standard input. For the next page, repeat the search with each
    sku of `shown` in the JSON output as --shown.
    """
    if photo is None and query_fields["sku"] is None and words is None:
        raise BadInput("Name at least one of: a PHOTO, --sku SKU, --text WORDS.")
    settings = Settings()
    limit = settings.max_image_bytes
    query = Query(
        picture=read_photo(photo, limit) if photo is not None else None,
        more_pictures=tuple(read_photo(each, limit) for each in also),
        words=words,
        words_weight=weight,
        without_pictures=tuple(read_photo(each, limit) for each in not_like),
        without_words=not_text,
        without_weight=not_weight,
        filters=parse(list(filters)),
        objects=objects == "on",
        listings=True,
        **query_fields,
    )
    with App(settings) as app:
        cache = VectorCache()
        result = app.search.search(query, cache)
        facets = app.facets.of_query(query, cache) if with_facets else None
    if as_json:
        more = {} if facets is None else {"facets": facets_as_dict(facets)}
        print_json(as_dict(result) | more)
        return
    print_matches(result)
    if facets is not None:
        print_facets(facets)


def print_matches(result: SearchResult) -> None:
    """Print the matches as a table, and how they were found on standard error."""
    columns = ("#", "similarity", "means", "sku", "title", "brand", "category", "year", "price")
    if result.matches:
        print_table(columns, [_row(match) for match in result.matches])
    if result.close is False:
        note(NO_CLOSE_MATCH)
    for region in result.regions:
        note(region_text(region))
    for match in result.matches:
        for fold in match.folded:
            note(f"{match.product.sku}: also {_fold_text(fold)}")
        if match.same_picture is not None:
            skus = ", ".join(product.sku for product in match.listed)
            note(f"{match.product.sku}: {same_picture_text(match)}, such as {skus}")
        if match.similar_count:
            note(f"{match.product.sku}: {_similar_text(match)}")
    for drop in result.dropped:
        note(f"dropped {drop.sku}: {why_dropped(drop, decimals=4)}")
    plan = result.plan
    if plan.shortfall:
        note(f"Fewer than asked: {plan.shortfall}")
    if plan.words:
        note(words_text(plan))
    for sentence in reading_texts(plan):
        note(sentence)
    total_ms = plan.ms["total"] - plan.ms.get("load", 0.0)
    note(f"{plan.path}: {plan.reason}; {plan.model}, {total_ms:.0f} ms")


def region_text(region: RegionMatches) -> str:
    """An object's place in the photo, as for --region, and its best match."""
    place = ",".join(f"{edge:.2f}" for edge in region.box)
    if not region.matches:
        return f"object at {place}: no product"
    best = region.matches[0]
    similarity = _similarity_text(best.similarity)
    return f"object at {place}: {best.product.sku} {similarity} {best.product.title}".rstrip()


def as_dict(result: SearchResult) -> dict[str, Any]:
    """The result as plain values: `matches`, `regions`, how sure it is, and the plan."""
    plan = result.plan
    return {
        "matches": [_match_as_dict(match) for match in result.matches],
        "confidence": _rounded(result.confidence),
        "close": result.close,
        "regions": [
            {
                "box": list(region.box),
                "confidence": _rounded(region.confidence),
                "matches": [_match_as_dict(match) for match in region.matches],
            }
            for region in result.regions
        ],
        "dropped": [asdict(drop) for drop in result.dropped],
        "shown": list(result.shown),
        "plan": {
            "path": plan.path,
            "reason": plan.reason,
            "reason_code": plan.reason_code,
            "model": plan.model,
            "build": plan.build,
            "built_at": plan.built_at,
            "delta_rows": plan.delta_rows,
            "candidates": plan.candidates,
            "vanished": plan.vanished,
            "shortfall": plan.shortfall,
            "shortfall_counts": asdict(plan.shortfall_counts) if plan.shortfall_counts else None,
            "words": plan.words,
            **_reading_as_dict(plan.reading),
            "unknown": [asdict(each) for each in plan.unknown],
            "replica_lag_s": plan.replica_lag_s,
            "ms": dict(plan.ms),
        },
    }


def _reading_as_dict(reading: WordsReading | None) -> dict[str, Any]:
    reading = reading or WordsReading("")
    return {
        "language": reading.language or None,
        "corrected": [{"from": each.typed, "to": each.read_as} for each in reading.corrected],
        "synonyms": [asdict(each) for each in reading.synonyms],
        "ignored": list(reading.ignored),
    }


def print_facets(facets: Facets) -> None:
    """Print each facet with its most frequent values."""
    if facets.depth is not None:
        note(f"Counted among the {facets.depth:,} best results.")
    for name, values in facets.values.items():
        counts = ", ".join(f"{value} ({count:,})" for value, count in values.counts[:MAX_PRINTED])
        left_out = len(values.counts[MAX_PRINTED:]) + values.left_out
        note(f"{name}: {counts}{f', and {left_out:,} more' if left_out else ''}")


def facets_as_dict(facets: Facets) -> dict[str, Any]:
    """The facets as plain values; `depth` is null if all results were counted."""
    bounds = facets.bounds
    return {
        "depth": facets.depth,
        "products": bounds.products,
        "values": {name: facet_fields(values) for name, values in facets.values.items()},
        "year": {"from": bounds.first_year, "to": bounds.last_year},
        "price": {"from": bounds.lowest, "to": bounds.highest},
    }


def _match_as_dict(match: Match) -> dict[str, Any]:
    product = match.product
    return {
        "rank": match.rank,
        "sku": product.sku,
        "similarity": _rounded(match.similarity),
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
        **duplicate_fields(match, _rounded),
    }


def _fold_text(fold: Folded) -> str:
    year = "" if fold.product.year is None else f" ({fold.product.year})"
    distance = "" if fold.distance is None else f", distance {fold.distance:.3f}"
    evidence = "" if fold.evidence == fold.rule else f" ({fold.evidence}{distance})"
    return f"{fold.product.sku}{year}, {fold.rule}{evidence}"


def _similar_text(match: Match) -> str:
    skus = ", ".join(listing.product.sku for listing in match.similar)
    more = ", ..." if match.similar_count > len(match.similar) else ""
    listings = "listing" if match.similar_count == 1 else "listings"
    return f"{similar_number(match)} similar {listings} with the same words: {skus}{more}"


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)


def _row(match: Match) -> tuple[object, ...]:
    product = match.product
    return (
        match.rank, _similarity_text(match.similarity), match.means, product.sku, product.title,
        product.brand, product.category, product.year, price_text(product),
    )  # fmt: skip


def _similarity_text(similarity: float | None) -> str:
    return "" if similarity is None else f"{similarity:.3f}"


def read_photo(photo: Path, limit: int) -> bytes:
    """The content of a file, at most `limit` + 1 bytes: enough to see that it is too large."""
    if str(photo) == "-":
        return sys.stdin.buffer.read(limit + 1)
    try:
        with photo.open("rb") as file:
            return file.read(limit + 1)
    except OSError as exc:
        raise BadImage(f"The picture {photo} cannot be read: {exc.strerror or exc}.") from exc
