"""Duplicate groups of the whole catalogue, and their precision and recall against known pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from app.csv_columns import read_two_columns
from app.db.engine import check_schema
from app.db.queries import models, products, verdicts
from app.duplicates.folding import Folding
from app.duplicates.groups import DuplicateGroup, FoldCandidate, SimilarPair
from app.duplicates.picture_loading import picture_loader
from app.duplicates.union_find import UnionFind
from app.errors import BadSource, UnknownProduct
from app.types import Product

MAX_NAMED = 3
"""Unknown skus that an error message lists."""

SkuPair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Folded pairs compared with pairs known to be the same.

    `known` and `folds` count known and folded pairs, including those that follow transitively.
    `precision` is the share of folded pairs that are known (None if none folds), `recall` the share
    of known pairs that fold; both 0 to 1. `misses` are known pairs that do not fold, `false_folds`
    folded pairs that are not known.
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


@dataclass(frozen=True, slots=True)
class CatalogueFolds:
    """The groups of the catalogue with more than one product, and products that only read alike.

    They are among the `compared` products of the catalogue, which are all its `products` unless a
    part of it was asked for.
    """

    groups: list[DuplicateGroup]
    similar: list[SimilarPair]
    products: int
    compared: int


def duplicate_groups(engine: Engine, min_spelling_similarity: float) -> list[DuplicateGroup]:
    """The groups of the catalogue with more than one product, by all evidence and verdicts."""
    return catalogue_folds(engine, min_spelling_similarity).groups


def catalogue_folds(
    engine: Engine, min_spelling_similarity: float, *, first: int = 0, count: int | None = None
) -> CatalogueFolds:
    """The duplicate groups of the catalogue, and its similar listings.

    With `count` those among so many products only, from number `first` on, in the order of their
    identity keys, which begin with brand and category.
    """
    folding, total = _fold_catalogue(
        engine, min_spelling_similarity, by_verdicts=True, first=first, count=count
    )
    groups = folding.groups()
    compared = sum(len(group.skus) for group in groups)
    duplicates = [group for group in groups if group.folded]
    return CatalogueFolds(duplicates, folding.similar(), total, compared)


def evaluate(
    engine: Engine, known: Sequence[SkuPair], min_spelling_similarity: float
) -> DuplicateReport:
    """Fold the catalogue without verdicts and compare with the pairs known to be the same.

    All other pairs count as different. Raises UnknownProduct for a sku that is not in the
    catalogue.
    """
    folding, _ = _fold_catalogue(engine, min_spelling_similarity, by_verdicts=False)
    groups = folding.groups()
    skus = {sku for group in groups for sku in group.skus}
    unknown = sorted({sku for pair in known for sku in pair} - skus)
    if unknown:
        named = ", ".join(unknown[:MAX_NAMED]) + (", ..." if len(unknown) > MAX_NAMED else "")
        raise UnknownProduct(f"The pairs name {len(unknown)} skus no product has: {named}.")
    return compare(groups, known)


def compare(groups: Iterable[DuplicateGroup], known: Sequence[SkuPair]) -> DuplicateReport:
    """Precision and recall of groups against the pairs known to be the same."""
    expected = set(_transitive_pairs(known))
    folded = {pair for group in groups for pair in _pairs(group)}
    true = len(folded & expected)
    return DuplicateReport(
        known=len(expected),
        folds=len(folded),
        true=true,
        false=len(folded) - true,
        precision=true / len(folded) if folded else None,
        recall=true / len(expected),
        misses=tuple(sorted(expected - folded)),
        false_folds=tuple(sorted(folded - expected)),
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


def _fold_catalogue(
    engine: Engine,
    min_spelling_similarity: float,
    *,
    by_verdicts: bool,
    first: int = 0,
    count: int | None = None,
) -> tuple[Folding, int]:
    """The products of the catalogue, or a part of them, folded; and how many there are in all."""
    # One snapshot, so that every verdict and picture is of products that were read.
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    with repeatable.connect() as connection:
        check_schema(connection)
        catalogue: Iterable[Product] = products.stream(connection, first, count)
        candidates = [FoldCandidate(product, 1.0) for product in catalogue]
        decided = verdicts.all_verdicts(connection) if by_verdicts else []
        load = picture_loader(connection, models.active(connection))
        total = products.count_all(connection)
        return Folding(candidates, decided, min_spelling_similarity, load), total


def _transitive_pairs(known: Iterable[SkuPair]) -> Iterator[SkuPair]:
    """The known pairs and those that follow from them by transitivity."""
    groups = UnionFind()
    for one, other in known:
        groups.join(one, other)
    members: dict[str, set[str]] = {}
    for sku in {sku for pair in known for sku in pair}:
        members.setdefault(groups.find(sku), set()).add(sku)
    for skus in members.values():
        yield from combinations(sorted(skus), 2)


def _pairs(group: DuplicateGroup) -> Iterator[SkuPair]:
    return combinations(sorted(group.skus), 2)
