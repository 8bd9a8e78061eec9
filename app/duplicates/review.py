"""The review queue: scans the catalogue in batches for pairs of products that may be one."""

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
from app.duplicates.pair_order import PairEvidence, WaitingPair, evidence
from app.duplicates.word_rules import group_by_verdicts, same_product
from app.errors import UnknownProduct
from app.types import Calibration, Model, Product, SimilarityLabel, Verdict, label_for

MAX_SCAN_S = 1.0
"""A scan that has found no pair returns after so many seconds, to show its progress."""

BETTER_S = 0.3
"""A scan returns a pair that only looks alike after so many seconds without a better one."""

PRODUCTS_PER_BATCH = 25
"""Products whose nearest neighbours are read in one batch."""

GROUPS_PER_BATCH = 10
"""Groups of products with a common picture, and groups with the same words, read in one batch."""

DEFAULT_MAX_DISTANCE = 0.1
"""Largest cosine distance of a candidate pair while `lookalike calibrate` has set none: about the
distance of two photos of one object under the models in use."""

THUMBNAILS = 4
"""Pictures shown of each product, those nearest to the other product's."""

CalibrationTable = Mapping[str | None, Calibration]
"""Calibrations by category; None: of the whole catalogue."""

Key = TypeVar("Key", int, str)


@dataclass(frozen=True, slots=True)
class ReviewProduct:
    """One product of a pair, with those of its pictures that are nearest to the other product's."""

    product: Product
    pictures: tuple[ShownPicture, ...]
    more: int
    """Number of its other pictures."""


@dataclass(frozen=True, slots=True)
class ReviewPair:
    """Two products side by side, and the evidence that they are one.

    `distance` is the cosine distance (0 to 2) of their nearest pictures, None without pictures, and
    `means` its label; `rule` is the rule by which their words agree. `verdict` is an earlier
    verdict on the pair.
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
    """A verdict with the titles of both products; None for a product that is gone."""

    verdict: Verdict
    titles: tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class ReviewCursor:
    """How far one reviewer has scanned the catalogue; a scan starts with an empty cursor.

    `pictures`, `keys` and `products` are the last ones read, None once there are no more.
    `scanned` is the number of products scanned, `waiting` are pairs found and not yet returned, the
    one with the strongest evidence first, and `asked` all pairs returned.
    """

    pictures: int | None = 0
    keys: str | None = ""
    products: int | None = 0
    scanned: int = 0
    waiting: tuple[WaitingPair, ...] = ()
    asked: frozenset[SkuPair] = frozenset()

    @property
    def finished(self) -> bool:
        """Whether the whole catalogue was scanned and no pair waits."""
        return self.all_read and not self.waiting

    @property
    def all_read(self) -> bool:
        """Whether the whole catalogue was scanned."""
        return self.pictures is None and self.keys is None and self.products is None

    def with_pair(self, skus: SkuPair) -> ReviewCursor:
        """The cursor with a pair that comes next."""
        first = WaitingPair(PairEvidence.PICTURE_AND_WORDS, -1.0, skus)
        return replace(self, waiting=(first, *self.waiting))


@dataclass(frozen=True, slots=True)
class ReviewProgress:
    """How many products were scanned and how many there are, the pairs that wait, the weak
    ones by themselves, and the verdicts so far."""

    scanned: int
    products: int
    waiting: int
    waiting_weak: int
    decided: int


def next_pair(
    engine: Engine, cursor: ReviewCursor, min_spelling_similarity: float
) -> tuple[ReviewPair | None, ReviewCursor]:
    """The next pair to review, and the cursor after it.

    Candidates are products that share a picture, products with the same words, and products whose
    nearest pictures are within the calibrated distance of "same product". They come by their
    evidence (`PairEvidence`), of equal evidence the nearest first; a weak pair, for which only
    pictures or general words speak, waits until the catalogue is scanned, or BETTER_S have brought
    no better one. A pair is skipped if this scan has returned it before, or if verdicts settle it,
    directly or through other products.

    A pair of None means that there are no more, or, while the cursor is not finished, that none was
    found within MAX_SCAN_S; call again to continue. Raises NoModel, SchemaMismatch and
    DatabaseUnavailable.
    """
    began = time.monotonic()
    with snapshot(engine) as connection:
        model = _model(connection)
        calibrations = _calibrations(connection, model)
        scan = _Scan(connection, model, calibrations, min_spelling_similarity)
        pair, cursor = scan.first_open(cursor, weak_too=cursor.all_read)
        while pair is None and not cursor.finished:
            cursor = scan.batch(cursor)
            waited_s = time.monotonic() - began
            weak_too = cursor.all_read or waited_s > BETTER_S
            pair, cursor = scan.first_open(cursor, weak_too=weak_too)
            if waited_s > MAX_SCAN_S:
                break
    return pair, cursor


def count_products(engine: Engine) -> int:
    """How many products there are to compare: they are counted, which takes its time."""
    with snapshot(engine) as connection:
        return review_pairs.count_products(connection)


def progress(engine: Engine, cursor: ReviewCursor, stored: int) -> ReviewProgress:
    """How far a review of so many products is."""
    with snapshot(engine) as connection:
        decided = review_pairs.count_verdicts(connection)
    weak = sum(each.is_weak for each in cursor.waiting)
    scanned = stored if cursor.all_read else min(cursor.scanned, stored)
    return ReviewProgress(scanned, stored, len(cursor.waiting) - weak, weak, decided)


def load_pair(engine: Engine, skus: SkuPair, min_spelling_similarity: float) -> ReviewPair:
    """Two products side by side, whatever verdict they have. Raises UnknownProduct."""
    with snapshot(engine) as connection:
        model = _model(connection)
        pair = _load(
            connection, model, _calibrations(connection, model), skus, min_spelling_similarity
        )
    if pair is None:
        raise UnknownProduct(f"{skus[0]} or {skus[1]} is not in the catalogue any more.")
    return pair


def latest_decisions(engine: Engine, limit: int, offset: int = 0) -> list[ReviewDecision]:
    """The latest verdicts, newest first, after the `offset` newest."""
    with snapshot(engine) as connection:
        check_schema(connection)
        return [
            ReviewDecision(verdict, (title_a, title_b))
            for verdict, title_a, title_b in verdicts.newest(connection, limit, offset)
        ]


def _model(connection: Connection) -> Model:
    check_schema(connection)
    return models.require_active(connection)


def _calibrations(connection: Connection, model: Model) -> CalibrationTable:
    return {row.category: row for row in calibration.read(connection, model.id)}


@dataclass(frozen=True, slots=True)
class _Scan:
    """Reads candidate pairs in one snapshot. `spelling` is the least similarity of spellings."""

    connection: Connection
    model: Model
    calibrations: CalibrationTable
    spelling: float

    def first_open(
        self, cursor: ReviewCursor, *, weak_too: bool
    ) -> tuple[ReviewPair | None, ReviewCursor]:
        """The first waiting pair that is not settled and whose products still exist; of weak
        pairs only if `weak_too`."""
        open_ = set(_unsettled(self.connection, [each.skus for each in cursor.waiting]))
        waiting = [each for each in cursor.waiting if each.skus in open_]
        while waiting and (weak_too or not waiting[0].is_weak):
            skus = waiting.pop(0).skus
            cursor = replace(cursor, asked=cursor.asked | {skus})
            pair = _load(self.connection, self.model, self.calibrations, skus, self.spelling)
            if pair is not None:
                return pair, replace(cursor, waiting=tuple(waiting))
        return None, replace(cursor, waiting=tuple(waiting))

    def batch(self, cursor: ReviewCursor) -> ReviewCursor:
        """The cursor after another batch, whose unsettled pairs wait in it."""
        cursor, candidates = _read_batch(self.connection, self.model, self.calibrations, cursor)
        known = cursor.asked | {each.skus for each in cursor.waiting}
        new = self._with_evidence(_unsettled(self.connection, sorted(candidates - known)))
        return replace(cursor, waiting=tuple(sorted([*cursor.waiting, *new])))

    def _with_evidence(self, pairs: Sequence[SkuPair]) -> Iterator[WaitingPair]:
        if not pairs:
            return
        stored = products.by_sku(self.connection, sorted({sku for pair in pairs for sku in pair}))
        distances = review_pairs.distances(self.connection, self.model, pairs)
        for skus in pairs:
            if not all(sku in stored for sku in skus):
                continue
            a, b = stored[skus[0]], stored[skus[1]]
            # 3 is farther than any cosine distance: pairs without one come last.
            distance = distances.get(skus, 3.0)
            shared = {ref.sha256 for ref in a.pictures} & {ref.sha256 for ref in b.pictures}
            near = distance <= _max_distance(self.calibrations, a.product.category)
            yield WaitingPair(
                evidence(
                    a.product, b.product, shares_picture=bool(shared), near=near,
                    min_spelling_similarity=self.spelling,
                ),
                distance, skus,
            )  # fmt: skip


def _load(
    connection: Connection,
    model: Model,
    calibrations: CalibrationTable,
    skus: SkuPair,
    min_spelling_similarity: float,
) -> ReviewPair | None:
    """Two products side by side; None if one of them is gone."""
    stored = products.by_sku(connection, skus)
    if len(stored) < len(skus):
        return None
    a, b = stored[skus[0]], stored[skus[1]]
    sides = _side(connection, model, a, b), _side(connection, model, b, a)
    distances = [shown.distance for shown in sides[0].pictures if shown.distance is not None]
    distance = min(distances, default=None)
    category = a.product.category if a.product.category == b.product.category else None
    earlier = [
        verdict
        for verdict in verdicts.related(connection, skus)
        if {verdict.sku_a, verdict.sku_b} == set(skus)
    ]
    return ReviewPair(
        sides,
        distance,
        None if distance is None else label_for(distance, category, calibrations),
        bool({ref.sha256 for ref in a.pictures} & {ref.sha256 for ref in b.pictures}),
        same_product(a.product, b.product, min_spelling_similarity),
        earlier[0] if earlier else None,
    )


def _side(
    connection: Connection, model: Model, one: products.StoredProduct, other: products.StoredProduct
) -> ReviewProduct:
    nearest = review_pairs.side_by_side(connection, model, one.id, other.id, THUMBNAILS)
    return ReviewProduct(one.product, tuple(nearest), len(one.pictures) - len(nearest))


def _read_batch(
    connection: Connection, model: Model, calibrations: CalibrationTable, cursor: ReviewCursor
) -> tuple[ReviewCursor, set[SkuPair]]:
    """The cursor after another batch, and the candidate pairs of the batch."""
    candidates: set[SkuPair] = set()
    if cursor.pictures is not None:
        by_picture = review_pairs.shared_pictures(connection, cursor.pictures, GROUPS_PER_BATCH)
        candidates.update(_pairs(by_picture.values()))
        cursor = replace(cursor, pictures=_last(list(by_picture), GROUPS_PER_BATCH))
    if cursor.keys is not None:
        by_key = review_pairs.same_words(connection, cursor.keys, GROUPS_PER_BATCH)
        candidates.update(_pairs(by_key.values()))
        cursor = replace(cursor, keys=_last(list(by_key), GROUPS_PER_BATCH))
    if cursor.products is not None:
        ids = review_pairs.product_ids_after(connection, cursor.products, PRODUCTS_PER_BATCH)
        candidates.update(_near_pairs(connection, model, calibrations, ids))
        cursor = replace(
            cursor,
            products=_last(ids, PRODUCTS_PER_BATCH),
            scanned=cursor.scanned + len(ids),
        )
    return cursor, candidates


def _unsettled(connection: Connection, pairs: Sequence[SkuPair]) -> list[SkuPair]:
    """The pairs that verdicts settle neither directly nor through other products."""
    skus = sorted({sku for pair in pairs for sku in pair})
    groups = group_by_verdicts(verdicts.related(connection, skus) if skus else [])
    return [
        (a, b) for a, b in pairs if groups.find(a) != groups.find(b) and not groups.are_apart(a, b)
    ]


def _pairs(groups: Iterable[Sequence[str]]) -> Iterator[SkuPair]:
    for skus in groups:
        yield from combinations(sorted(skus), 2)


def _last(keys: Sequence[Key], limit: int) -> Key | None:
    """The key after which the next batch begins; None if this was the last batch."""
    return keys[-1] if len(keys) == limit else None


def _near_pairs(
    connection: Connection, model: Model, calibrations: CalibrationTable, ids: Sequence[int]
) -> Iterator[SkuPair]:
    """Pairs of these products (ids) with others whose pictures are near enough to be the same."""
    widest = max(_max_distance(calibrations, category) for category in (None, *calibrations))
    for near in review_pairs.near_pairs(connection, model, ids, widest):
        if near.distance <= _max_distance(calibrations, near.category):
            a, b = sorted(near.pair)
            yield a, b


def _max_distance(calibrations: CalibrationTable, category: str | None) -> float:
    """The distance up to which two products of a category may be the same."""
    for name in (category, None):
        if name in calibrations:
            distance = calibrations[name].same_product.distance
            if distance is not None:
                return distance
    return DEFAULT_MAX_DISTANCE
