"""The calibrator: collects evidence of what distances mean, fits cut-offs and stores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
from PIL import Image
from sqlalchemy import Connection, Engine

from app.db.engine import check_schema, snapshot
from app.db.queries import calibration, models, nearest
from app.db.queries.calibration import SampledPicture
from app.encoders.base import Encoder
from app.errors import BadImage, ModelMismatch
from app.evaluation.calibration import LabelledPair, calibrated
from app.images.thumbnails import open_thumbnail
from app.types import Calibration, Hit, Model, Vector
from app.vectors import round_to_float16

PICTURES = 2000
"""Pictures drawn from the catalogue, and at most as many pairs of a product's own pictures."""

COPIES = 200
"""Pictures whose thumbnail is encoded; with CLIP on a processor that takes about ten seconds."""

SEARCHES = 300
"""Pictures whose nearest other product is looked for, by an exact scan each."""

BATCH = 32


def calibrate(engine: Engine, encoder: Callable[[], Encoder]) -> tuple[Calibration, ...]:
    """Fit the cut-offs of the active model and store them in the place of those it had.

    Returns the row of the whole catalogue, then those of the categories that have a cut-off of
    their own. Evidence of a meaning, and against it:

    - same photo: a picture and its thumbnail, which is the same photo small and recompressed;
      against it, two pictures of one product, and all that is evidence against "same product".
    - same product: two pictures of one product, or of products a verdict calls the same; against
      it, a picture and the nearest one of another product, or of products a verdict tells apart.
    - similar: two pictures of one category; against it, of two categories.

    Products that look alike without being known as duplicates count as different ones, so
    judging duplicates makes the cut-offs better. Raises NoModel, ModelMismatch and what loading
    the encoder raises.
    """
    with snapshot(engine) as connection:
        check_schema(connection)
        model = models.require_active(connection)
    loaded = encoder()
    if loaded.fingerprint != model.fingerprint:
        raise _changed(model)
    with snapshot(engine) as connection:
        drawn = calibration.sample_pictures(connection, model, PICTURES)
        small = calibration.thumbnails(
            connection, [picture.picture_id for picture in drawn[:COPIES]]
        )
        pairs = list(_from_the_catalogue(connection, model, drawn))
    # Encoding takes long, and a snapshot that is held keeps dead rows from being cleaned away.
    copied = [(picture, small[picture.picture_id]) for picture in drawn[:COPIES]]
    rows = calibrated([*pairs, *_copies(loaded, copied)])
    with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        if not calibration.replace(connection, model.id, rows):
            raise _changed(model)
    return rows


def _changed(model: Model) -> ModelMismatch:
    return ModelMismatch(
        f"The active model is no longer {model.name}, so nothing was calibrated. Run "
        "`lookalike calibrate` again."
    )


def _from_the_catalogue(
    connection: Connection, model: Model, drawn: Sequence[SampledPicture]
) -> Iterator[LabelledPair]:
    for row in calibration.own_pairs(connection, model, PICTURES):
        yield LabelledPair("same product", True, row.category, row.distance)
        yield LabelledPair("same photo", False, row.category, row.distance)
    for row in calibration.judged_pairs(connection, model, PICTURES):
        yield LabelledPair("same product", row.same, row.category, row.distance)
        if not row.same:  # pictures of one product listed twice are often the same photo
            yield LabelledPair("same photo", False, row.category, row.distance)
    for picture, hit in _nearest_others(connection, model, drawn[:SEARCHES]):
        yield LabelledPair("same product", False, picture.category, hit.distance)
        yield LabelledPair("same photo", False, picture.category, hit.distance)
    yield from _categories(drawn)


def _nearest_others(
    connection: Connection, model: Model, drawn: Sequence[SampledPicture]
) -> Iterator[tuple[SampledPicture, Hit]]:
    """Each picture with the nearest one of a different product; no two pictures twice."""
    seen: set[frozenset[int]] = set()
    for picture in drawn:
        near = nearest.exact(
            connection, model, picture.vector, n=50, k=20, excluded=picture.products
        )
        found = [hit.product_id for hit in near.hits]
        same = calibration.known_same(connection, picture.products, found)
        hit = next((hit for hit in near.hits if hit.product_id not in same), None)
        if hit and (pair := frozenset((picture.picture_id, hit.picture_id))) not in seen:
            seen.add(pair)
            yield picture, hit


def _categories(drawn: Sequence[SampledPicture]) -> Iterator[LabelledPair]:
    """Each picture with one of its category and with one of another, both drawn at random."""
    random = np.random.default_rng(0)
    known = [picture for picture in drawn if picture.category is not None]
    names = np.array([picture.category for picture in known])
    for picture in known:
        for holds in (True, False):
            others = np.flatnonzero((names == picture.category) == holds)
            if len(others):
                other = known[random.choice(others)]
                if not set(picture.products) & set(other.products):
                    distance = _distance(picture.vector, other.vector)
                    yield LabelledPair("similar", holds, picture.category, distance)


def _copies(
    encoder: Encoder, copied: Sequence[tuple[SampledPicture, bytes]]
) -> Iterator[LabelledPair]:
    """Each picture with its own thumbnail, encoded anew; a damaged thumbnail is left out."""
    opened = list(_opened(copied))
    for first in range(0, len(opened), BATCH):
        batch = opened[first : first + BATCH]
        vectors = encoder.encode_pictures([small for _, small in batch])
        for (picture, _), vector in zip(batch, vectors, strict=True):
            distance = _distance(picture.vector, round_to_float16(vector))
            yield LabelledPair("same photo", True, picture.category, distance)


def _opened(
    copied: Sequence[tuple[SampledPicture, bytes]],
) -> Iterator[tuple[SampledPicture, Image.Image]]:
    for picture, data in copied:
        with suppress(BadImage):
            yield picture, open_thumbnail(data)


def _distance(a: Vector, b: Vector) -> float:
    """Cosine distance, 0 to 2."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return min(2.0, max(0.0, 1 - float(a @ b / np.sqrt((a @ a) * (b @ b)))))
