"""A walk through the catalogue, a stretch at a time, that finds products which may be one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from sqlalchemy import Connection

from app.db.queries import review_pairs, verdicts
from app.db.queries.review_pairs import Pair
from app.folding import decided
from app.types import Calibration, Model

PRODUCTS_AT_ONCE = 25
"""Products of a stretch, whose neighbours are looked for."""

GROUPS_AT_ONCE = 10
"""Groups of products with a picture, and with words, in common that a stretch takes along."""

UNCALIBRATED = 0.1
"""The cosine distance up to which two products are asked about where `lookalike calibrate` has
found none: about as far as two photos of one thing are under the models in use."""

Cuts = Mapping[str | None, Calibration]
"""What distances mean, by category; None: in the whole catalogue."""

Key = TypeVar("Key", int, str)


@dataclass(frozen=True, slots=True)
class Walk:
    """How far one person has come through the catalogue; each starts with an empty one.

    `pictures`, `keys` and `products` are the last ones looked at, None when there are no more;
    `looked_at` counts the products. `waiting` are the pairs found and not asked yet.
    """

    pictures: int | None = 0
    keys: str | None = ""
    products: int | None = 0
    looked_at: int = 0
    waiting: tuple[Pair, ...] = ()
    asked: frozenset[Pair] = frozenset()

    @property
    def finished(self) -> bool:
        """Whether the whole catalogue was looked at and nothing waits."""
        over = self.pictures is None and self.keys is None and self.products is None
        return over and not self.waiting


def further(connection: Connection, model: Model, cuts: Cuts, walk: Walk) -> Walk:
    """The walk after another stretch, with the open pairs found in it waiting, nearest first."""
    found: set[Pair] = set()
    if walk.pictures is not None:
        sharing = review_pairs.sharing(connection, walk.pictures, GROUPS_AT_ONCE)
        found.update(_pairs(sharing.values()))
        walk = replace(walk, pictures=_last(list(sharing), GROUPS_AT_ONCE))
    if walk.keys is not None:
        same_words = review_pairs.same_words(connection, walk.keys, GROUPS_AT_ONCE)
        found.update(_pairs(same_words.values()))
        walk = replace(walk, keys=_last(list(same_words), GROUPS_AT_ONCE))
    if walk.products is not None:
        ids = review_pairs.products_behind(connection, walk.products, PRODUCTS_AT_ONCE)
        found.update(_near(connection, model, cuts, ids))
        walk = replace(
            walk, products=_last(ids, PRODUCTS_AT_ONCE), looked_at=walk.looked_at + len(ids)
        )
    new = unsettled(connection, sorted(found - walk.asked))
    far = review_pairs.distances(connection, model, new)
    new.sort(key=lambda pair: (far.get(pair, 3.0), pair))
    return replace(walk, waiting=(*walk.waiting, *new))


def unsettled(connection: Connection, pairs: Sequence[Pair]) -> list[Pair]:
    """Those that neither a verdict nor what follows from several has settled."""
    skus = sorted({sku for pair in pairs for sku in pair})
    groups = decided(verdicts.around(connection, skus)) if skus else decided([])
    return [(a, b) for a, b in pairs if groups.of(a) != groups.of(b) and not groups.apart(a, b)]


def _pairs(groups: Iterable[Sequence[str]]) -> Iterator[Pair]:
    for skus in groups:
        yield from combinations(sorted(skus), 2)


def _last(keys: Sequence[Key], asked_for: int) -> Key | None:
    """Where the next stretch begins; None if this was the last."""
    return keys[-1] if len(keys) == asked_for else None


def _near(
    connection: Connection, model: Model, cuts: Cuts, products: Sequence[int]
) -> Iterator[Pair]:
    """Pairs of these products (id) and others that look as if they could be one product."""
    widest = max(_cut(cuts, category) for category in (None, *cuts))
    for near in review_pairs.look_alike(connection, model, products, widest):
        if near.distance <= _cut(cuts, near.category):
            a, b = sorted(near.pair)
            yield a, b


def _cut(cuts: Cuts, category: str | None) -> float:
    """The distance up to which two products of a category may be the same one."""
    for name in (category, None):
        if name in cuts and (distance := cuts[name].same_product.distance) is not None:
            return distance
    return UNCALIBRATED
