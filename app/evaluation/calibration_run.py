"""Calibrates a catalogue: collects labelled pairs, fits cut-offs, and stores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from PIL import Image
from sqlalchemy import Connection, Engine

from app.db.engine import check_schema, snapshot
from app.db.queries import calibration, models, nearest
from app.db.queries.calibration import SampledPicture
from app.encoders.base import Encoder
from app.errors import BadImage, ModelMismatch
from app.evaluation.calibration import LabelledPair, fit_calibrations
from app.evaluation.close_match import fit_close_cuts
from app.evaluation.close_photos import ask
from app.images.thumbnails import open_thumbnail
from app.types import Calibration, CloseCut, CutOff, Hit, Model, Vector
from app.vectors import round_to_float16

PICTURES = 2000
"""Pictures sampled from the catalogue, and maximum number of pairs of each other kind."""

COPIES = 200
"""Pictures whose thumbnail is encoded; CLIP on a CPU takes about ten seconds for that."""

SEARCHES = 300
"""Pictures whose nearest other product is searched, each by an exact scan."""

BATCH = 32


def calibrate(engine: Engine, encoder: Callable[[], Encoder]) -> tuple[Calibration, ...]:
    """Fit the cut-offs of the active model and store them in place of the former ones.

    Returns the row of the whole catalogue, then those of the categories that have their own
    cut-offs of labels or of "no close match" (`close_photos`). Positive and negative pairs of each
    label:

    - same photo: positive are a picture and its thumbnail, which is the same photo small and
      recompressed; negative are two pictures of one product, and all negative pairs of "same
      product".
    - same product: positive are two pictures of one product, or of products that a verdict calls
      the same; negative are a picture and the nearest one of another product, or pictures of
      products that a verdict calls different.
    - similar: positive are two pictures of one category; negative are those of two categories.

    Unknown duplicates count as different products, so reviewing duplicates improves the cut-offs.
    Raises NoModel, ModelMismatch, and the errors of `encoder`.
    """
    with snapshot(engine) as connection:
        check_schema(connection)
        model = models.require_active(connection)
    loaded = encoder()
    if loaded.fingerprint != model.fingerprint:
        raise _model_changed(model)
    with snapshot(engine) as connection:
        sample = calibration.sample_pictures(connection, model, PICTURES)
        thumbnails = calibration.thumbnails(
            connection, [picture.picture_id for picture in sample[:COPIES]]
        )
        pairs = list(_catalogue_pairs(connection, model, sample))
    # Encoding takes long, so the snapshot is closed first: VACUUM cannot remove rows it can see.
    copies = [(picture, thumbnails[picture.picture_id]) for picture in sample[:COPIES]]
    labels = fit_calibrations([*pairs, *_thumbnail_pairs(loaded, copies)])
    rows = _with_close_cuts(labels, fit_close_cuts(*ask(engine, model, loaded, sample)))
    with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        if not calibration.replace(connection, model.id, rows):
            raise _model_changed(model)
    return rows


def _with_close_cuts(
    labels: Sequence[Calibration], cuts: Mapping[str | None, CloseCut]
) -> tuple[Calibration, ...]:
    """One row for the catalogue and for each category that is in either, by name."""
    rows = {row.category: row for row in labels}
    for category, cut in cuts.items():
        rows[category] = replace(rows.get(category, _without_labels(category)), close=cut)
    return tuple(rows[category] for category in sorted(rows, key=lambda name: name or ""))


def _without_labels(category: str | None) -> Calibration:
    unknown = CutOff(None, 0, 0)
    return Calibration(category, unknown, unknown, unknown)


def _model_changed(model: Model) -> ModelMismatch:
    return ModelMismatch(
        f"The active model is no longer {model.name}, so nothing was calibrated. Run "
        "`lookalike calibrate` again."
    )


def _catalogue_pairs(
    connection: Connection, model: Model, sample: Sequence[SampledPicture]
) -> Iterator[LabelledPair]:
    for row in calibration.own_pairs(connection, model, PICTURES):
        yield LabelledPair("same product", True, row.category, row.distance)
        yield LabelledPair("same photo", False, row.category, row.distance)
    for row in calibration.judged_pairs(connection, model, PICTURES):
        yield LabelledPair("same product", row.same, row.category, row.distance)
        if not row.same:  # the two listings of one product often have the same photo
            yield LabelledPair("same photo", False, row.category, row.distance)
    for picture, hit in _nearest_others(connection, model, sample[:SEARCHES]):
        yield LabelledPair("same product", False, picture.category, hit.distance)
        yield LabelledPair("same photo", False, picture.category, hit.distance)
    yield from _category_pairs(sample)


def _nearest_others(
    connection: Connection, model: Model, sample: Sequence[SampledPicture]
) -> Iterator[tuple[SampledPicture, Hit]]:
    """Each picture with the nearest one of a different product; no pair twice."""
    seen: set[frozenset[int]] = set()
    for picture in sample:
        near = nearest.exact(
            connection, model, picture.vector, n=50, k=20, excluded=picture.products
        )
        product_ids = [hit.product_id for hit in near.hits]
        same = calibration.known_same(connection, picture.products, product_ids)
        hit = next((hit for hit in near.hits if hit.product_id not in same), None)
        if hit and (pair := frozenset((picture.picture_id, hit.picture_id))) not in seen:
            seen.add(pair)
            yield picture, hit


def _category_pairs(sample: Sequence[SampledPicture]) -> Iterator[LabelledPair]:
    """Each picture with a random one of its category and a random one of another category."""
    random = np.random.default_rng(0)
    known = [picture for picture in sample if picture.category is not None]
    names = np.array([picture.category for picture in known])
    for picture in known:
        for holds in (True, False):
            others = np.flatnonzero((names == picture.category) == holds)
            if len(others):
                other = known[random.choice(others)]
                if not set(picture.products) & set(other.products):
                    distance = _distance(picture.vector, other.vector)
                    yield LabelledPair("similar", holds, picture.category, distance)


def _thumbnail_pairs(
    encoder: Encoder, copies: Sequence[tuple[SampledPicture, bytes]]
) -> Iterator[LabelledPair]:
    """Each picture with its own thumbnail, which is encoded; damaged thumbnails are skipped."""
    opened = list(_opened(copies))
    for first in range(0, len(opened), BATCH):
        batch = opened[first : first + BATCH]
        vectors = encoder.encode_pictures([thumbnail for _, thumbnail in batch])
        for (picture, _), vector in zip(batch, vectors, strict=True):
            distance = _distance(picture.vector, round_to_float16(vector))
            yield LabelledPair("same photo", True, picture.category, distance)


def _opened(
    copies: Sequence[tuple[SampledPicture, bytes]],
) -> Iterator[tuple[SampledPicture, Image.Image]]:
    for picture, data in copies:
        with suppress(BadImage):
            yield picture, open_thumbnail(data)


def _distance(a: Vector, b: Vector) -> float:
    """Cosine distance, 0 to 2."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return min(2.0, max(0.0, 1 - float(a @ b / np.sqrt((a @ a) * (b @ b)))))
