"""Collects photos of which it is known what product they show, to fit a model to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from app.db.engine import check_schema, snapshot
from app.db.queries import embeddings, fit_views, search_events, verdicts
from app.duplicates.union_find import UnionFind
from app.encoders.base import Encoder
from app.errors import BadInput
from app.images.thumbnails import open_thumbnail
from app.types import Model, Vector, Vectors

HINTS = {
    "verdicts": "Review pairs first: `lookalike duplicates`, or the page Duplicates.",
    "events": "Photos are kept for keys made by `lookalike key create --record queries`; events "
    "are posted to /v1/events.",
    "catalogue": "A product needs a second picture that no other product shows.",
}
"""Where photos come from whose products are known, and what to do where there are none."""

MIN_PHOTOS, MIN_PRODUCTS = 40, 20
"""Fewer do not tell a gain from chance."""

MAX_PHOTOS = 20_000
MAX_GALLERY = 20_000
"""Products among which each photo must find its own."""

BATCH = 32


@dataclass(frozen=True, slots=True)
class FitSamples:
    """Photos and the products they show, as vectors of one model.

    `gallery` holds one unit row (m, dim) a product, `photos` unit rows (n, dim), and `products` the
    row of the gallery that each photo shows (n,).
    """

    gallery: Vectors
    photos: Vectors
    products: NDArray[np.int64]


@dataclass(slots=True)
class _Labels:
    """The products that photos show.

    `pictures` are pairs of skus: pictures of the second product are photos of the first, which may
    be the same product. `previews` are skus with a JPEG. `merged` products are left out of the
    gallery.
    """

    pictures: list[tuple[str, str]] = field(default_factory=list)
    previews: list[tuple[str, bytes]] = field(default_factory=list)
    merged: set[str] = field(default_factory=set)


def collect(
    engine: Engine, model: Model, source: str, encoder: Callable[[], Encoder]
) -> FitSamples:
    """The samples of one of the sources (keys of HINTS) under a model.

    - catalogue: products with several pictures; the first stands for the product, the others are
      its photos.
    - verdicts: products that people called the same; the pictures of the others are photos of the
      first.
    - events: photos of searches whose results were clicked or bought, as far as a key lets them be
      kept. `encoder` encodes their previews, each once; no snapshot is held meanwhile.

    A picture that a product outside shows too is no photo: it does not tell them apart.

    Raises BadInput for another source, and for fewer than MIN_PHOTOS photos of MIN_PRODUCTS
    products.
    """
    if source not in HINTS:
        raise BadInput(f"{source!r} is no source; there are: {', '.join(HINTS)}.")
    with snapshot(engine) as connection:
        check_schema(connection)
        labels = _READERS[source](connection)
    previews = _encode([preview for _, preview in labels.previews], encoder)
    with snapshot(engine) as connection:
        samples = _samples(connection, model, labels, previews)
    products = len(np.unique(samples.products))
    if len(samples.photos) < MIN_PHOTOS or products < MIN_PRODUCTS:
        raise BadInput(
            f"There are {len(samples.photos)} photos of {products} products to learn from; it "
            f"needs at least {MIN_PHOTOS} photos of {MIN_PRODUCTS} products. {HINTS[source]}"
        )
    return samples


def _of_catalogue(connection: Connection) -> _Labels:
    return _Labels([(sku, sku) for sku in fit_views.with_several_pictures(connection, MAX_PHOTOS)])


def _of_verdicts(connection: Connection) -> _Labels:
    decided = [verdict for verdict in verdicts.all_verdicts(connection) if verdict.same]
    same = UnionFind()
    for verdict in decided:
        same.join(verdict.sku_a, verdict.sku_b)
    groups: dict[str, list[str]] = {}
    for sku in sorted({sku for each in decided for sku in (each.sku_a, each.sku_b)}):
        groups.setdefault(same.find(sku), []).append(sku)
    pairs = [(group[0], sku) for group in groups.values() for sku in group[1:]]
    return _Labels(pairs[:MAX_PHOTOS], merged={sku for _, sku in pairs})


def _of_events(connection: Connection) -> _Labels:
    rows = search_events.labelled(connection)
    photos = dict.fromkeys(
        (row.expected_sku, row.preview) for row in rows if row.preview is not None
    )
    return _Labels(previews=list(photos)[:MAX_PHOTOS])


_READERS = {"catalogue": _of_catalogue, "verdicts": _of_verdicts, "events": _of_events}


def _encode(previews: Sequence[bytes], encoder: Callable[[], Encoder]) -> list[Vector]:
    distinct, rows = list(dict.fromkeys(previews)), dict[bytes, Vector]()
    for start in range(0, len(distinct), BATCH):
        batch = distinct[start : start + BATCH]
        vectors = encoder().encode_pictures([open_thumbnail(each) for each in batch])
        rows |= zip(batch, vectors, strict=True)
    return [rows[each] for each in previews]


def _samples(
    connection: Connection, model: Model, labels: _Labels, previews: Sequence[Vector]
) -> FitSamples:
    named = {sku for pair in labels.pictures for sku in pair} | {sku for sku, _ in labels.previews}
    stored = fit_views.pictures(connection, model, named)
    photos = _photos(labels.pictures, stored, fit_views.times_shown(connection, stored.values()))
    encoded = [
        (sku, row) for (sku, _), row in zip(labels.previews, previews, strict=True) if sku in stored
    ]
    gallery = {sku: stored[sku][0] for sku in sorted({sku for sku, _ in (*photos, *encoded)})}
    gallery |= fit_views.first_pictures_of_others(
        connection, model, [*gallery, *labels.merged], max(0, MAX_GALLERY - len(gallery))
    )
    ids = {*gallery.values(), *(picture for _, picture in photos)}
    vectors = embeddings.vectors(connection, model, sorted(ids))
    rows = {sku: row for row, sku in enumerate(gallery)}
    return FitSamples(
        _stack([vectors[id_] for id_ in gallery.values()], model.dim),
        _stack([*(vectors[id_] for _, id_ in photos), *(row for _, row in encoded)], model.dim),
        np.array([rows[sku] for sku, _ in (*photos, *encoded)], np.int64),
    )


def _photos(
    pairs: Sequence[tuple[str, str]],
    stored: Mapping[str, Sequence[int]],
    times_shown: Mapping[int, int],
) -> list[tuple[str, int]]:
    """The photos of each product, each once: the pictures of the other one, but for the product's
    first, and for those that products outside show too."""
    same: dict[str, set[str]] = {}
    for sku, other in pairs:
        same.setdefault(sku, {sku}).add(other)
    within = {
        sku: Counter(picture for each in skus for picture in stored.get(each, ()))
        for sku, skus in same.items()
    }
    photos = dict.fromkeys(
        (sku, picture)
        for sku, other in pairs
        if sku in stored
        for picture in stored.get(other, ())
        if picture != stored[sku][0] and times_shown[picture] == within[sku][picture]
    )
    return list(photos)[:MAX_PHOTOS]


def _stack(rows: Sequence[Vector], dim: int) -> Vectors:
    return np.array(rows, np.float32).reshape(-1, dim)
