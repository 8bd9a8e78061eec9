"""Products, pictures, embeddings and their model, as the catalogue stores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Embeddings: shape (n, dim), float32, each row of length 1."""


EmbeddingRows = NDArray[np.float16] | NDArray[np.float32]
"""Embeddings as read from the table (float16) or as computed (float32): shape (n, dim)."""


Vector = NDArray[np.float32]
"""One embedding: shape (dim,), float32, of length 1."""


ProgressCallback = Callable[[str], object]
"""Receives messages about the progress of a long operation; the result is ignored."""


@dataclass(frozen=True, slots=True)
class Model:
    """A row of `model`: the encoder that a set of embeddings belongs to.

    `source` is the hub name or folder it is loaded from; None if that is `name`. `base_name` and
    `base_revision` are those of the model that a fitted one follows.
    """

    id: int
    name: str
    revision: str
    dim: int
    fingerprint: str
    source: str | None = None
    base_name: str | None = None
    base_revision: str | None = None

    @property
    def network(self) -> tuple[str, str]:
        """The name and the revision that limits and cuts were fitted for: of a fitted model those
        of the model it follows."""
        return self.base_name or self.name, self.base_revision or self.revision


@dataclass(frozen=True, slots=True)
class Product:
    """The catalogue data of a product; `attributes` are all columns of the source without a
    field."""

    sku: str
    title: str = ""
    brand: str | None = None
    category: str | None = None
    colour: str | None = None
    year: int | None = None
    price: Decimal | None = None
    currency: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PictureData:
    """A decoded picture as it is stored: size in pixels, JPEG thumbnail, sha256 (32 bytes) of the
    original file, and its visible colours, if they were computed."""

    sha256: bytes
    width: int
    height: int
    thumbnail: bytes
    colours: Colours | None = None


@dataclass(frozen=True, slots=True)
class Colours:
    """The visible colours of a picture: a share, 0 to 255, of each basic colour, a byte each
    in the order of `app.images.basic_colours.NAMES`, and the version of the computation.

    All 0: not known.
    """

    shares: bytes
    version: int

    @property
    def main(self) -> int:
        """The number of the colour with the largest share."""
        return self.shares.index(max(self.shares))


@dataclass(frozen=True, slots=True)
class PictureRef:
    """A picture of a product: sha256 of the original file (32 bytes), and the uri it came from."""

    sha256: bytes
    uri: str


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A stored picture: size of the original in pixels, JPEG thumbnail, and the uri it came
    from."""

    width: int
    height: int
    thumbnail: bytes
    uri: str


@dataclass(frozen=True, slots=True)
class ProductDetails:
    """A product with its pictures in order."""

    product: Product
    pictures: tuple[StoredPicture, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision about two skus; `sku_a` sorts before `sku_b` by code points."""

    sku_a: str
    sku_b: str
    same: bool
    decided_by: str = ""
    decided_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run: "ingest", "delete" or "undo"; `bytes` is the size of what is kept to undo it."""

    id: int
    kind: str
    source: str
    state: str
    report: Mapping[str, Any]
    started_at: datetime
    bytes: int
