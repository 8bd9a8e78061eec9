"""`lookalike duplicates`: list duplicates and similar listings, record verdicts, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.duplicates import report as duplicate_report
from app.duplicates.groups import DuplicateGroup, FoldedCandidate, SimilarPair
from app.duplicates.verdicts import decide as record_verdict


@click.group()
def duplicates() -> None:
    """List, decide and evaluate duplicate products."""


@duplicates.command()
@click.argument("sku_a")
@click.argument("sku_b")
@click.option("--same/--different", default=None, help="The verdict.")
@click.option("--by", "decided_by", required=True, metavar="NAME", help="Who decided.")
@as_json
def decide(sku_a: str, sku_b: str, same: bool | None, decided_by: str, as_json: bool) -> None:
    """Record the verdict that SKU_A and SKU_B are the same product, or that they differ.

    A verdict overrides every rule and is kept when the products are loaded again. It replaces an
    earlier one on the same pair, and is refused if it contradicts verdicts on other pairs.
    """
    if same is None:
        raise click.UsageError("Give --same or --different.")
    with App() as app:
        verdict = record_verdict(app.engine, sku_a, sku_b, same, decided_by)
    if as_json:
        print_json({
            "sku_a": verdict.sku_a, "sku_b": verdict.sku_b, "same": verdict.same,
            "decided_by": verdict.decided_by,
            "decided_at": verdict.decided_at and verdict.decided_at.isoformat(timespec="seconds"),
        })  # fmt: skip
    else:
        decision = "the same product" if same else "different products"
        note(
            f"Recorded: {verdict.sku_a} and {verdict.sku_b} are {decision} "
            f"(by {verdict.decided_by})."
        )


@duplicates.command()
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1_000_000))
@as_json
def pairs(limit: int, as_json: bool) -> None:
    """List the products that are folded into another one, each with the rule and its evidence."""
    with App() as app:
        folds = duplicate_report.catalogue_folds(app.engine, app.settings.typo_similarity)
    rows = [_row(group, fold) for group in folds.groups for fold in group.folded]
    _print_rows(rows, limit, as_json, "No two products of the catalogue are duplicates.")
    if folds.similar and not as_json:
        count = len(folds.similar)
        note(
            f"{count} more pair{'s' * (count != 1)} of listings only read alike; list them with "
            "`lookalike duplicates similar`."
        )


@duplicates.command()
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1_000_000))
@as_json
def similar(limit: int, as_json: bool) -> None:
    """List products that have the same words as another one and are not the same product.

    Each with the nearest such product, the distance of their pictures, and why they are two.
    """
    with App() as app:
        folds = duplicate_report.catalogue_folds(app.engine, app.settings.typo_similarity)
    rows = [_similar_row(pair) for pair in folds.similar]
    _print_rows(rows, limit, as_json, "No two products of the catalogue only read alike.")


@duplicates.command()
@click.argument("source", metavar="PAIRS", type=click.Path(path_type=Path))
@as_json
def evaluate(source: Path, as_json: bool) -> None:
    """Measure the rules on PAIRS, a CSV of known duplicates with the columns sku_a and sku_b.

    All other pairs of the catalogue count as different. Verdicts are ignored here.
    """
    known = duplicate_report.read_pairs(source)
    with App() as app:
        report = duplicate_report.evaluate(app.engine, known, app.settings.typo_similarity)
    if as_json:
        print_json(report.as_dict())
        return
    for name in ("known", "folds", "true", "false", "precision", "recall"):
        value = getattr(report, name)
        click.echo(f"{name:13} {value:.3f}" if isinstance(value, float) else f"{name:13} {value}")
    for name, errors in (("missed", report.misses), ("false fold", report.false_folds)):
        for sku_a, sku_b in errors:
            click.echo(f"{name:13} {sku_a} {sku_b}")


def _print_rows(rows: list[dict[str, Any]], limit: int, as_json: bool, none: str) -> None:
    if as_json:
        print_json(rows[:limit])
    elif rows:
        print_table(tuple(rows[0]), [list(row.values()) for row in rows[:limit]])
    if len(rows) > limit:
        note(f"{limit} of {len(rows)} are shown; show more with --limit.")
    elif not rows:
        note(none)


def _row(group: DuplicateGroup, fold: FoldedCandidate) -> dict[str, Any]:
    return {
        "kept": group.keeper.sku,
        "folded": fold.candidate.sku,
        "rule": fold.rule,
        "matched_by": fold.matched_by,
        "title": fold.candidate.product.title,
        "evidence": fold.evidence,
        "distance": _rounded(fold.distance),
    }


def _similar_row(pair: SimilarPair) -> dict[str, Any]:
    return {
        "sku": pair.product.sku,
        "similar": pair.other.sku,
        "rule": pair.rule,
        "reason": pair.reason,
        "distance": _rounded(pair.distance),
        "title": pair.product.title,
    }


def _rounded(distance: float | None) -> float | None:
    return None if distance is None else round(distance, 6)
