"""What a run would take from the products it touches, counted before it writes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from sqlalchemy import Engine

from app.catalog.entries import emptied
from app.db.queries import filled_fields
from app.db.queries.filled_fields import FilledFields
from ingest.sources import SourceReject, SourceRow

LOOKUP_ROWS = 5000
"""Rows whose products are looked up in one statement."""

MAX_LOSS = 0.2
"""Share of the filled fields, and of the pictures, that a run may take from what it touches."""

MAX_COLUMNS_SHOWN = 5


@dataclass(slots=True)
class Losses:
    """Counts over the rows of a source whose products are stored.

    `filled` fields have a value now, those in `emptied` (by column) would lose it;
    `pictures_taken` of `pictures` would go.
    """

    products: int = 0
    filled: int = 0
    emptied: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    pictures_taken: int = 0

    @property
    def losses(self) -> list[str]:
        """What the run would take beyond MAX_LOSS, as parts of a sentence."""
        losses = []
        fields = self.emptied.total()
        if fields > MAX_LOSS * self.filled:
            columns = self.emptied.most_common(MAX_COLUMNS_SHOWN)
            names = ", ".join(f"{name} of {count:,}" for name, count in columns)
            more = ", …" if len(self.emptied) > len(columns) else ""
            losses.append(f"empty {fields:,} of {self.filled:,} filled fields ({names}{more})")
        if self.pictures_taken > MAX_LOSS * self.pictures:
            losses.append(f"take {self.pictures_taken:,} of {self.pictures:,} pictures")
        return losses

    @property
    def objection(self) -> str | None:
        """Why the run should not go on; None if it takes no more than MAX_LOSS."""
        if not self.losses:
            return None
        return (
            f"This run would {' and '.join(self.losses)} of the {self.products:,} products it "
            "touches. An empty field clears what is stored, a column that is left out keeps it: "
            "correct the source, or go on with --force."
        )


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a row gives without a value, and its number of pictures (None: not given)."""

    fields: frozenset[str]
    attributes: frozenset[str]
    images: int
    gives_images: bool


def count_losses(engine: Engine, rows: Iterable[SourceRow | SourceReject]) -> Losses:
    """Count what the rows would take, with one statement per LOOKUP_ROWS rows.

    Rows whose pictures turn out to be bad are counted too.
    """
    losses = Losses()
    with engine.connect() as connection:
        for claims in _batches(rows):
            stored = filled_fields.of_products(connection, list(claims))
            for sku, claim in claims.items():
                _add(losses, claim, stored.get(sku))
    return losses


def _batches(rows: Iterable[SourceRow | SourceReject]) -> Iterator[dict[str, _Claim]]:
    """Claims by sku; they are small, while a row may have megabytes."""
    good = (row for row in rows if isinstance(row, SourceRow))
    while batch := {row.product.sku: _claim(row) for row in islice(good, LOOKUP_ROWS)}:
        yield batch


def _claim(row: SourceRow) -> _Claim:
    fields, attributes = emptied(row.product, row.given)
    return _Claim(fields, attributes, len(row.images), row.given.pictures)


def _add(losses: Losses, claim: _Claim, stored: FilledFields | None) -> None:
    if stored is None:
        return
    losses.products += 1
    losses.filled += len(stored.fields) + len(stored.attributes)
    losses.emptied.update(stored.fields & claim.fields)
    losses.emptied.update(stored.attributes & claim.attributes)
    losses.pictures += stored.pictures
    if claim.gives_images:
        losses.pictures_taken += max(0, stored.pictures - claim.images)
