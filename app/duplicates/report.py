"""The products of the whole catalogue that fold, and how right that is where it is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from app.csv_input import read_two_columns
from app.db.engine import check_schema
from app.db.queries import products, verdicts
from app.duplicates.rules import DuplicateGroup, FoldCandidate, fold
from app.duplicates.union_find import UnionFind
from app.errors import BadSource, UnknownProduct
from app.types import Product, Verdict

NAMED = 3
"""So many unknown skus an error names."""

SkuPair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """How the pairs that fold compare with those known to be the same.

    `known` counts known pairs, `folds` pairs that fold, each through others too; `precision` is the
    share of folds that are known, `recall` the share of the known that fold (0 to 1, precision None
    without folds). `misses` are known pairs that do not fold, `false_folds` pairs that should not.
    """

    known: int
    folds: int
    true: int
    false: int
    precision: float | None
    recall: float
    misses: tuple[SkuPair, ...]
    false_folds: tuple[SkuPair, ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


def folded(engine: Engine, typo: float) -> list[DuplicateGroup]:
    """The groups of the catalogue that hold more than one product, by rules and verdicts."""
    groups = fold(*_catalogue(engine), typo)
    return [group for group in groups if group.folded]


def evaluate(engine: Engine, known: Sequence[SkuPair], typo: float) -> DuplicateReport:
    """Fold the catalogue by the rules alone and compare with the pairs known to be the same.

    All other pairs of the catalogue are taken for different. Raises UnknownProduct for a pair that
    names a sku the catalogue does not have.
    """
    candidates, _ = _catalogue(engine)
    skus = {candidate.sku for candidate in candidates}
    unknown = sorted({sku for pair in known for sku in pair} - skus)
    if unknown:
        named = ", ".join(unknown[:NAMED]) + (", ..." if len(unknown) > NAMED else "")
        raise UnknownProduct(f"The pairs name {len(unknown)} skus no product has: {named}.")
    return compare(fold(candidates, [], typo), known)


def compare(groups: Iterable[DuplicateGroup], known: Sequence[SkuPair]) -> DuplicateReport:
    """The figures of groups beside the pairs that are known to be the same."""
    right = set(_closed(known))
    found = {pair for group in groups for pair in _pairs(group)}
    true = len(found & right)
    return DuplicateReport(
        known=len(right),
        folds=len(found),
        true=true,
        false=len(found) - true,
        precision=true / len(found) if found else None,
        recall=true / len(right),
        misses=tuple(sorted(right - found)),
        false_folds=tuple(sorted(found - right)),
    )


def read_pairs(source: Path) -> list[SkuPair]:
    """A CSV with the columns sku_a and sku_b. Raises BadSource."""
    pairs = list(_parse_pairs(source))
    if not pairs:
        raise BadSource(f"{source} holds no pairs; each line names two skus.")
    return pairs


def _parse_pairs(source: Path) -> Iterator[SkuPair]:
    for line, sku_a, sku_b in read_two_columns(source, "sku_a", "sku_b"):
        pair = sku_a.strip(), sku_b.strip()
        if not all(pair) or pair[0] == pair[1]:
            raise BadSource(f"{source}, line {line}: name two different skus.")
        yield pair


def _catalogue(engine: Engine) -> tuple[list[FoldCandidate], list[Verdict]]:
    # One snapshot: no verdict on a product that the products read before do not have yet.
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    with repeatable.connect() as connection:
        check_schema(connection)
        found: Iterable[Product] = products.stream(connection)
        return [FoldCandidate(product, 1.0) for product in found], verdicts.all_verdicts(connection)


def _closed(known: Iterable[SkuPair]) -> Iterator[SkuPair]:
    """The known pairs and those that follow: what is the same as one thing is the same."""
    groups = UnionFind()
    for one, other in known:
        groups.join(one, other)
    members: dict[str, set[str]] = {}
    for sku in {sku for pair in known for sku in pair}:
        members.setdefault(groups.of(sku), set()).add(sku)
    for skus in members.values():
        yield from combinations(sorted(skus), 2)


def _pairs(group: DuplicateGroup) -> Iterator[SkuPair]:
    skus = [group.keeper.sku, *(fold.candidate.sku for fold in group.folded)]
    return combinations(sorted(skus), 2)
