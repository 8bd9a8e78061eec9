"""How `lookalike search` prints a result: a table with notes, or JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from app.cli.output import note, print_table
from app.search.confidence import NO_CLOSE_MATCH
from app.search.explain import (
    price_text,
    reading_texts,
    same_picture_text,
    similar_number,
    why_dropped,
    words_text,
)
from app.search.result_fields import duplicate_fields, facet_fields
from app.types import Folded, Match, RegionMatches, SearchResult, WordsReading

if TYPE_CHECKING:
    from app.search.facets import Facets  # importing it loads the index

MAX_PRINTED = 10
"""Values of a facet that are printed; the JSON output has all."""


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
        "excluded": list(reading.excluded),
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
