"""Which two products a person is asked about next: those alike that no verdict has settled yet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from sqlalchemy import Connection, Engine

from app.db.engine import check_schema, snapshot
from app.db.queries import calibration, models, products, review_pairs, verdicts
from app.db.queries.review_pairs import ShownPicture, SkuPair
from app.duplicates.rules import decided, same_product
from app.errors import UnknownProduct
from app.types import Calibration, Model, Product, SimilarityLabel, Verdict, label_for

PATIENCE_S = 1.0
"""After so many seconds without a pair the person is told how far the walk has come."""


THUMBNAILS = 4
"""Pictures of each product that are shown, those nearest to the other's."""


@dataclass(frozen=True, slots=True)
class ReviewProduct:
    """One of two products, and those of its pictures that are nearest to the other's."""

    product: Product
    pictures: tuple[ShownPicture, ...]
    more: int
    """Pictures that are not among them."""


@dataclass(frozen=True, slots=True)
class ReviewPair:
    """Two products side by side, and what speaks for their being one.

    `distance` is the cosine distance (0 to 2) of their nearest pictures, None without pictures, and
    `means` the word for it; `rule` is the rule by which their words agree. `verdict` is what
    somebody has decided about them before.
    """

    sides: tuple[ReviewProduct, ReviewProduct]
    distance: float | None
    means: SimilarityLabel | None
    shares_picture: bool
    rule: str | None
    verdict: Verdict | None

    @property
    def skus(self) -> SkuPair:
        return self.sides[0].product.sku, self.sides[1].product.sku


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    """A verdict with the titles of both products; None where a product is gone."""

    verdict: Verdict
    titles: tuple[str | None, str | None]


def ask(engine: Engine, walk: ReviewCursor, typo: float) -> tuple[ReviewPair | None, ReviewCursor]:
    """The next two products to be judged, and the walk behind them.

    Taken along are products that show one picture, products whose words are the same, and products
    whose nearest pictures are within the calibrated distance of "same product"; of those found in
    one stretch the nearest come first. A pair is left out once it was asked in this walk, or a
    verdict, or what follows from several, says what it is.

    No question means that there are no more, or, where the walk is not finished, that none was
    found within a second; ask again to walk on. Raises NoModel, SchemaMismatch and
    DatabaseUnavailable.
    """
    ends = time.monotonic() + PATIENCE_S
    with snapshot(engine) as connection:
        model = _model(connection)
        cuts = _cuts(connection, model)
        question, walk = _first_open(connection, model, cuts, walk, typo)
        while question is None and not walk.finished:
            walk = further(connection, model, cuts, walk)
            question, walk = _first_open(connection, model, cuts, walk, typo)
            if time.monotonic() > ends:
                break
    return question, walk


def again(engine: Engine, pair: SkuPair, typo: float) -> ReviewPair:
    """Two products side by side, whatever was decided about them. Raises UnknownProduct."""
    with snapshot(engine) as connection:
        model = _model(connection)
        question = _question(connection, model, _cuts(connection, model), pair, typo)
    if question is None:
        raise UnknownProduct(f"{pair[0]} or {pair[1]} is not in the catalogue any more.")
    return question


def newest(engine: Engine, limit: int, offset: int = 0) -> list[ReviewDecision]:
    """What was decided last, newest first, without the `offset` newest."""
    with snapshot(engine) as connection:
        check_schema(connection)
        return [
            ReviewDecision(verdict, (title_a, title_b))
            for verdict, title_a, title_b in verdicts.newest(connection, limit, offset)
        ]


def _model(connection: Connection) -> Model:
    check_schema(connection)
    return models.require_active(connection)


def _cuts(connection: Connection, model: Model) -> CalibrationTable:
    return {row.category: row for row in calibration.read(connection, model.id)}


def _first_open(
    connection: Connection, model: Model, cuts: CalibrationTable, walk: ReviewCursor, typo: float
) -> tuple[ReviewPair | None, ReviewCursor]:
    """The first of the waiting pairs that is still open and still there."""
    waiting = unsettled(connection, walk.waiting)
    while waiting:
        pair, *waiting = waiting
        walk = replace(walk, waiting=tuple(waiting), asked=walk.asked | {pair})
        question = _question(connection, model, cuts, pair, typo)
        if question is not None:
            return question, walk
    return None, replace(walk, waiting=())


def _question(
    connection: Connection, model: Model, cuts: CalibrationTable, pair: SkuPair, typo: float
) -> ReviewPair | None:
    """Two products side by side; None if one of them is gone."""
    stored = products.by_sku(connection, pair)
    if len(stored) < len(pair):
        return None
    a, b = stored[pair[0]], stored[pair[1]]
    sides = _side(connection, model, a, b), _side(connection, model, b, a)
    far = [shown.distance for shown in sides[0].pictures if shown.distance is not None]
    distance = min(far, default=None)
    category = a.product.category if a.product.category == b.product.category else None
    own = [it for it in verdicts.related(connection, pair) if {it.sku_a, it.sku_b} == set(pair)]
    return ReviewPair(
        sides,
        distance,
        None if distance is None else label_for(distance, category, cuts),
        bool({ref.sha256 for ref in a.pictures} & {ref.sha256 for ref in b.pictures}),
        same_product(a.product, b.product, typo),
        own[0] if own else None,
    )


def _side(
    connection: Connection, model: Model, one: products.StoredProduct, other: products.StoredProduct
) -> ReviewProduct:
    nearest = review_pairs.side_by_side(connection, model, one.id, other.id, THUMBNAILS)
    return ReviewProduct(one.product, tuple(nearest), len(one.pictures) - len(nearest))


PRODUCTS_AT_ONCE = 25
"""Products of a stretch, whose neighbours are looked for."""


GROUPS_AT_ONCE = 10
"""Groups of products with a picture, and with words, in common that a stretch takes along."""


UNCALIBRATED = 0.1
"""The cosine distance up to which two products are asked about where `lookalike calibrate` has
found none: about as far as two photos of one thing are under the models in use."""


CalibrationTable = Mapping[str | None, Calibration]
"""What distances mean, by category; None: in the whole catalogue."""


Key = TypeVar("Key", int, str)


@dataclass(frozen=True, slots=True)
class ReviewCursor:
    """How far one person has come through the catalogue; each starts with an empty one.

    `pictures`, `keys` and `products` are the last ones looked at, None when there are no more;
    `looked_at` counts the products. `waiting` are the pairs found and not asked yet.
    """

    pictures: int | None = 0
    keys: str | None = ""
    products: int | None = 0
    looked_at: int = 0
    waiting: tuple[SkuPair, ...] = ()
    asked: frozenset[SkuPair] = frozenset()

    @property
    def finished(self) -> bool:
        """Whether the whole catalogue was looked at and nothing waits."""
        over = self.pictures is None and self.keys is None and self.products is None
        return over and not self.waiting


def further(
    connection: Connection, model: Model, cuts: CalibrationTable, walk: ReviewCursor
) -> ReviewCursor:
    """The walk after another stretch, with the open pairs found in it waiting, nearest first."""
    found: set[SkuPair] = set()
    if walk.pictures is not None:
        sharing = review_pairs.shared_pictures(connection, walk.pictures, GROUPS_AT_ONCE)
        found.update(_pairs(sharing.values()))
        walk = replace(walk, pictures=_last(list(sharing), GROUPS_AT_ONCE))
    if walk.keys is not None:
        same_words = review_pairs.same_words(connection, walk.keys, GROUPS_AT_ONCE)
        found.update(_pairs(same_words.values()))
        walk = replace(walk, keys=_last(list(same_words), GROUPS_AT_ONCE))
    if walk.products is not None:
        ids = review_pairs.product_ids_after(connection, walk.products, PRODUCTS_AT_ONCE)
        found.update(_near(connection, model, cuts, ids))
        walk = replace(
            walk, products=_last(ids, PRODUCTS_AT_ONCE), looked_at=walk.looked_at + len(ids)
        )
    new = unsettled(connection, sorted(found - walk.asked))
    far = review_pairs.distances(connection, model, new)
    new.sort(key=lambda pair: (far.get(pair, 3.0), pair))
    return replace(walk, waiting=(*walk.waiting, *new))


def unsettled(connection: Connection, pairs: Sequence[SkuPair]) -> list[SkuPair]:
    """Those that neither a verdict nor what follows from several has settled."""
    skus = sorted({sku for pair in pairs for sku in pair})
    groups = decided(verdicts.related(connection, skus)) if skus else decided([])
    return [(a, b) for a, b in pairs if groups.of(a) != groups.of(b) and not groups.apart(a, b)]


def _pairs(groups: Iterable[Sequence[str]]) -> Iterator[SkuPair]:
    for skus in groups:
        yield from combinations(sorted(skus), 2)


def _last(keys: Sequence[Key], asked_for: int) -> Key | None:
    """Where the next stretch begins; None if this was the last."""
    return keys[-1] if len(keys) == asked_for else None


def _near(
    connection: Connection, model: Model, cuts: CalibrationTable, products: Sequence[int]
) -> Iterator[SkuPair]:
    """Pairs of these products (id) and others that look as if they could be one product."""
    widest = max(_cut(cuts, category) for category in (None, *cuts))
    for near in review_pairs.near_pairs(connection, model, products, widest):
        if near.distance <= _cut(cuts, near.category):
            a, b = sorted(near.pair)
            yield a, b


def _cut(cuts: CalibrationTable, category: str | None) -> float:
    """The distance up to which two products of a category may be the same one."""
    for name in (category, None):
        if name in cuts and (distance := cuts[name].same_product.distance) is not None:
            return distance
    return UNCALIBRATED
