"""Asks photos of a catalogue's products against it, with and without the category of the product.

Most are simulated: a sampled picture is photographed again. The others are the pictures of products
with several, each asked against the rest of the catalogue. One pass over all embeddings answers all
of them exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from app.db.engine import snapshot
from app.db.queries import calibration, embeddings
from app.db.queries.calibration import SampledPicture
from app.encoders.base import Encoder
from app.errors import BadImage
from app.evaluation.close_match import AskedPhotos
from app.images.simulated_photos import photograph_again
from app.images.thumbnails import open_thumbnail
from app.types import Model, Vector, Vectors
from app.vectors import round_to_float16, unit_rows

PHOTOS = 800
"""Photos that are simulated at most; encoding them is most of the time of a fit."""

MAX_SIDE = 384
"""Longer side of a simulated photo at most, in pixels. Compression takes more from a photo of fewer
pixels, so one of a thumbnail's size would be worse than one of the picture that it was made of."""

PAGES_PER_BLOCK = 256
BATCH = 32

NOT_FOUND = -2.0
"""Less than every cosine similarity."""


@dataclass(frozen=True, slots=True)
class AskedPhoto:
    """The vector (dim,) of a photo of a sampled picture; a picture asked as it is does not find
    itself."""

    picture: SampledPicture
    vector: Vector
    simulated: bool


def ask(
    engine: Engine, model: Model, encoder: Encoder, sample: Sequence[SampledPicture]
) -> tuple[AskedPhotos, AskedPhotos]:
    """Photos of products that are in the catalogue, and the same photos without the category of
    their product, without those that find nothing."""
    sampled = sample[:PHOTOS]
    ids = [picture.picture_id for picture in sampled]
    with snapshot(engine) as connection:
        thumbnails = calibration.thumbnails(connection, ids)
        siblings = calibration.with_siblings(connection, model, ids)
    # Encoding takes long, so no snapshot is held meanwhile: VACUUM cannot remove rows it can see.
    photos = list(simulated(encoder, sampled, thumbnails))
    photos += [
        AskedPhoto(picture, picture.vector, False)
        for picture in sampled
        if picture.picture_id in siblings and len(picture.products) == 1
    ]
    with snapshot(engine) as connection:
        return _ask(connection, model, photos)


def simulated(
    encoder: Encoder, sample: Sequence[SampledPicture], thumbnails: dict[int, bytes]
) -> Iterator[AskedPhoto]:
    """Each picture photographed again, always in the same way; damaged and deleted thumbnails are
    skipped."""
    again = []
    for place, picture in enumerate(sample):
        with suppress(BadImage, KeyError):
            data = thumbnails[picture.picture_id]
            side = min(picture.side, MAX_SIDE)
            again.append((picture, photograph_again(open_thumbnail(data), crc32(data), side)))
        if len(again) == BATCH or (again and place == len(sample) - 1):
            vectors = encoder.encode_pictures([photo for _, photo in again])
            for (shown, _), vector in zip(again, vectors, strict=True):
                yield AskedPhoto(shown, round_to_float16(vector), True)
            again = []


def _ask(
    connection: Connection, model: Model, photos: Sequence[AskedPhoto]
) -> tuple[AskedPhotos, AskedPhotos]:
    if not photos:
        return _nothing(), _nothing()
    embeddings.prepare_stream(connection)
    shown, categories = calibration.shown_categories(connection, model)
    names, codes = np.unique(np.array(["", *categories]), return_inverse=True)
    codes = codes[1:]
    best = _Best(
        unit_rows(np.stack([photo.vector for photo in photos])),
        np.searchsorted(names, [photo.picture.category or "" for photo in photos]),
        np.array([-1 if photo.simulated else photo.picture.picture_id for photo in photos]),
    )
    pages = range(0, embeddings.page_count(connection, model), PAGES_PER_BLOCK)
    with closing(embeddings.stream(connection, model, pages)) as blocks:
        for ids, vectors in blocks:
            place = np.searchsorted(shown, ids)
            known = place < len(shown)
            known[known] = shown[place[known]] == ids[known]
            native = vectors[known].astype(np.float16)
            best.compare(ids[known], codes[place[known]], unit_rows(native))
    return best.asked(photos, names)


def _nothing() -> AskedPhotos:
    none = np.array([], np.str_)
    return AskedPhotos(np.array([]), none, none, np.array([], np.int64))


class _Best:
    """The best similarity of each photo (n,) and the category of that match, with all pictures and
    with those of other categories only; codes of categories, 0 is none."""

    def __init__(
        self, vectors: Vectors, categories: NDArray[np.int64], own: NDArray[np.int64]
    ) -> None:
        self._vectors, self._categories, self._own = vectors, categories, own
        self._similarities = np.full((2, len(own)), NOT_FOUND)
        self._matched = np.zeros((2, len(own)), np.int64)

    def compare(self, ids: NDArray[np.int64], codes: NDArray[np.int64], vectors: Vectors) -> None:
        """Compare with pictures: ids and codes of categories (m,), unit vectors (m, dim)."""
        if not len(ids):
            return
        similarities = self._vectors @ vectors.T
        similarities[self._own[:, None] == ids] = NOT_FOUND
        self._keep(0, similarities, codes)
        # A picture without a category may show the one that is left out.
        similarities[(self._categories[:, None] == codes) | (codes == 0)] = NOT_FOUND
        similarities[self._categories == 0] = NOT_FOUND
        self._keep(1, similarities, codes)

    def _keep(self, kind: int, similarities: NDArray[np.float32], codes: NDArray[np.int64]) -> None:
        best = similarities.argmax(axis=1)
        value = similarities[np.arange(len(best)), best]
        better = value > self._similarities[kind]
        self._similarities[kind, better] = value[better]
        self._matched[kind, better] = codes[best[better]]

    def asked(
        self, photos: Sequence[AskedPhoto], names: NDArray[np.str_]
    ) -> tuple[AskedPhotos, AskedPhotos]:
        """The photos with all pictures, and those with pictures of other categories."""
        products = np.array([photo.picture.products[0] for photo in photos], np.int64)
        present, absent = (
            AskedPhotos(
                self._similarities[kind, found], names[self._matched[kind, found]],
                names[self._categories[found]], products[found],
            )
            for kind, found in enumerate(self._similarities > NOT_FOUND)
        )  # fmt: skip
        return present, absent
