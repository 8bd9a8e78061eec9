"""Heat maps: which parts of a photo and of a product's picture made the two alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import Engine

from app.db.engine import snapshot
from app.db.queries import models, pictures
from app.db.text import check_text
from app.encoders.base import Encoder, EncoderProvider
from app.encoders.feature_map import MAP_SIDE
from app.errors import BadInput, NoRegions, NotReady, UnknownProduct
from app.images.thumbnails import open_thumbnail
from app.search.decoded_pictures import Decoder
from app.search.query_encoder import crop
from app.types import Region, Vector, Vectors

Heat = NDArray[np.float32]
"""The heat of the cells of a picture, (rows, columns), from 0 to 1; row 0 is the top."""

SIDE = 480
"""Longer side in pixels of a picture with its heat."""

_COLOURS = np.array([(20, 20, 90), (90, 40, 160), (230, 90, 60), (255, 230, 90)], np.float32)
"""From cold to hot."""

_COVER = 0.75
"""How much the hottest colour covers of a picture."""


@dataclass(frozen=True, slots=True)
class HeatedPicture:
    """An RGB picture, and the heat of its cells."""

    picture: Image.Image
    heat: Heat

    def drawn(self) -> Image.Image:
        """The picture in grey with its heat over it, SIDE pixels long."""
        factor = SIDE / max(self.picture.size)
        width, height = (max(1, round(side * factor)) for side in self.picture.size)
        grey = self.picture.convert("L").convert("RGB").resize((width, height))
        smooth = Image.fromarray(self.heat).resize((width, height), Image.Resampling.BICUBIC)
        heat = np.asarray(smooth).clip(0, 1)[:, :, None]
        colours = _coloured(heat[:, :, 0])
        mixed = np.asarray(grey, np.float32) * (1 - _COVER * heat) + colours * _COVER * heat
        return Image.fromarray(mixed.round().astype(np.uint8))

    def jpeg(self) -> bytes:
        """What `drawn` returns, as a JPEG."""
        file = BytesIO()
        self.drawn().save(file, "JPEG", quality=85)
        return file.getvalue()


@dataclass(frozen=True, slots=True)
class MatchHeat:
    """What made a photo and a product alike.

    `similarity` is the cosine of the photo and of the product's most similar picture, -1 to 1. The
    heat of both pictures has one scale: 1 is the pair of parts that contributes most.
    """

    sku: str
    similarity: float
    photo: HeatedPicture
    product: HeatedPicture

    def png(self) -> bytes:
        """Both pictures side by side, the photo on the left, as a PNG."""
        left, right = self.photo.drawn(), self.product.drawn()
        gap, height = 12, max(left.height, right.height)
        sheet = Image.new("RGB", (left.width + gap + right.width, height), "white")
        sheet.paste(left, (0, (height - left.height) // 2))
        sheet.paste(right, (left.width + gap, (height - right.height) // 2))
        file = BytesIO()
        sheet.save(file, "PNG")
        return file.getvalue()


class MatchExplainer:
    """Explains matches under the active model. Thread-safe.

    `decoder` reads trusted pictures, `untrusted_decoder` all others.
    """

    def __init__(
        self,
        engine: Engine,
        encoders: EncoderProvider,
        decoder: Decoder,
        untrusted_decoder: Decoder,
    ) -> None:
        self._engine = engine
        self._encoders = encoders
        self._decoders = {False: decoder, True: untrusted_decoder}

    def explain(
        self, photo: bytes, sku: str, *, region: Region | None = None, untrusted: bool = False
    ) -> MatchHeat:
        """What in a photo, or in a region of it (fractions of its sides), and in the product's most
        similar picture makes them alike.

        Raises BadImage, BadInput, UnknownProduct, NotReady for a product without a picture under
        the active model, and NoRegions if the model has no feature map.
        """
        _check(region)
        check_text("sku", sku)
        encoder = self._encoders.active()
        picture = self._decoders[untrusted](photo, at_least=None if region else MAP_SIDE)
        if region is not None:
            picture = crop(picture, region)
        vector = encoder.encode_pictures([picture])[0]
        similarity, other = self._most_similar(encoder, sku, vector)
        first, second = heat_maps(encoder, picture, other)
        return MatchHeat(
            sku, similarity, HeatedPicture(picture, first), HeatedPicture(other, second)
        )

    def _most_similar(
        self, encoder: Encoder, sku: str, vector: Vector
    ) -> tuple[float, Image.Image]:
        with snapshot(self._engine) as connection:
            model = models.require_active(connection)
            if model.fingerprint != encoder.fingerprint:
                raise NotReady("The active model was changed just now; try again.")
            rows = pictures.nearest_of_product(connection, model, sku, vector)
        if rows is None:
            raise UnknownProduct(f"No product has the sku {sku!r}.")
        if not rows:
            raise NotReady(
                f"No picture of {sku} has an embedding under {model.name}; run "
                f"`lookalike model embed {model.name}`."
            )
        distance, thumbnail = rows[0]
        return 1 - distance, open_thumbnail(thumbnail)


def heat_maps(encoder: Encoder, first: Image.Image, second: Image.Image) -> tuple[Heat, Heat]:
    """The heat of two RGB pictures' cells.

    Each cell is encoded as a picture of its own (`pool_windows`), and the mean of the cells of both
    pictures is subtracted, so that what they show everywhere has a short vector. The largest inner
    product of a cell with one of the other picture tells how much the cell is both unlike the rest
    and like a part of the other. The median of all is heat 0, the largest 1. Of the differences
    that were tried on photos with the same object planted in both, this one ranked the cells of
    the object highest. Raises NoRegions if the encoder has no feature map.
    """
    if not encoder.maps_regions:
        raise NoRegions("The active model has no feature map, so a match cannot be explained.")
    (one, shape), (other, other_shape) = (_cells(encoder, each) for each in (first, second))
    mean = np.concatenate([one, other]).mean(axis=0)
    products = (one - mean) @ (other - mean).T
    best = (products.max(axis=1), products.max(axis=0))
    cold = float(np.median(np.concatenate(best)))
    span = max(float(products.max()) - cold, np.finfo(np.float32).tiny)
    heats = [((each - cold) / span).clip(0, 1).astype(np.float32) for each in best]
    return heats[0].reshape(shape), heats[1].reshape(other_shape)


def _cells(encoder: Encoder, picture: Image.Image) -> tuple[Vectors, tuple[int, int]]:
    """The unit vectors (n, dim) of a picture's cells, row by row, and the shape of its map."""
    feature_map = encoder.encode_map(picture)
    rows, columns = feature_map.shape[:2]
    windows: Sequence[Region] = [
        (x / columns, y / rows, (x + 1) / columns, (y + 1) / rows)
        for y in range(rows)
        for x in range(columns)
    ]
    return encoder.pool_windows(feature_map, windows), (rows, columns)


def _coloured(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """The colours (…, 3), 0 to 255, of heats from 0 to 1."""
    stops = np.linspace(0, 1, len(_COLOURS))
    bands = [np.interp(heat, stops, _COLOURS[:, band]) for band in range(3)]
    return np.stack(bands, axis=-1).astype(np.float32)


def _check(region: Region | None) -> None:
    if region is None:
        return
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BadInput(
            "A region is left, top, right and bottom, each from 0 to 1, with left below right and "
            "top below bottom."
        )
