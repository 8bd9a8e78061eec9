"""`lookalike duplicates`: which products are one, what people decide, how right the rules are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.duplicates import report as service
from app.duplicates.rules import DuplicateGroup, FoldedCandidate
from app.duplicates.verdicts import decide as record


@click.group()
def duplicates() -> None:
    """Products that are one: only year, size or spelling differ, or somebody said so."""


@duplicates.command()
@click.argument("sku_a")
@click.argument("sku_b")
@click.option("--same/--different", default=None, help="What was decided.")
@click.option("--by", "decided_by", required=True, metavar="NAME", help="Who decided.")
@as_json
def decide(sku_a: str, sku_b: str, same: bool | None, decided_by: str, as_json: bool) -> None:
    """Record that SKU_A and SKU_B are the same product, or that they differ.

    A verdict wins over every rule and is remembered when the products are loaded anew. It replaces
    an earlier one on the same two, and is refused when it contradicts verdicts on others.
    """
    if same is None:
        raise click.UsageError("Say --same or --different.")
    with App() as app:
        verdict = record(app.engine, sku_a, sku_b, same, decided_by)
    if as_json:
        print_json({
            "sku_a": verdict.sku_a, "sku_b": verdict.sku_b, "same": verdict.same,
            "decided_by": verdict.decided_by,
            "decided_at": verdict.decided_at and verdict.decided_at.isoformat(timespec="seconds"),
        })  # fmt: skip
    else:
        said = "the same product" if same else "different products"
        note(f"{verdict.sku_a} and {verdict.sku_b} are {said}, says {verdict.decided_by}.")


@duplicates.command()
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1_000_000))
@as_json
def pairs(limit: int, as_json: bool) -> None:
    """List the products of the catalogue that fold into another, each with the rule."""
    with App() as app:
        groups = service.folded(app.engine, app.settings.typo_similarity)
    rows = [_row(group, fold) for group in groups for fold in group.folded]
    if as_json:
        print_json(rows[:limit])
    elif rows:
        print_table(tuple(rows[0]), [list(row.values()) for row in rows[:limit]])
    if len(rows) > limit:
        note(f"{limit} of {len(rows)} are shown; ask for more with --limit.")
    elif not rows:
        note("No two products of the catalogue are one.")


@duplicates.command()
@click.argument("source", metavar="PAIRS", type=click.Path(path_type=Path))
@as_json
def evaluate(source: Path, as_json: bool) -> None:
    """Measure the rules on PAIRS, a CSV with the columns sku_a and sku_b: pairs that are the same.

    All other pairs of the catalogue are taken for different. Verdicts do not count here.
    """
    known = service.read_pairs(source)
    with App() as app:
        found = service.evaluate(app.engine, known, app.settings.typo_similarity)
    if as_json:
        print_json(found.as_dict())
        return
    for name in ("known", "folds", "true", "false", "precision", "recall"):
        value = getattr(found, name)
        click.echo(f"{name:13} {value:.3f}" if isinstance(value, float) else f"{name:13} {value}")
    for name, wrong in (("missed", found.misses), ("false fold", found.false_folds)):
        for sku_a, sku_b in wrong:
            click.echo(f"{name:13} {sku_a} {sku_b}")


def _row(group: DuplicateGroup, fold: FoldedCandidate) -> dict[str, Any]:
    return {
        "kept": group.keeper.sku,
        "folded": fold.candidate.sku,
        "rule": fold.rule,
        "matched_by": fold.matched_by,
        "title": fold.candidate.product.title,
    }
