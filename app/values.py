"""The values that travel between rooms: frozen dataclasses, no SQLAlchemy, no side effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Embeddings: shape (n, dim), float32, each row of length 1."""

Vector = NDArray[np.float32]
"""One embedding: shape (dim,), float32, of length 1."""

Meaning = Literal["same photo", "same product", "similar"]
"""What a distance between two pictures is called, from the strongest claim to the weakest."""

SearchPath = Literal["faiss", "pgvector-hnsw", "exact"]


@dataclass(frozen=True, slots=True)
class Model:
    """A row of `model`: the encoder that a set of embeddings belongs to."""

    id: int
    name: str
    revision: str
    dim: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Product:
    """What the catalogue says of one product; `attributes` are the columns we have no name for."""

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
    """A decoded picture as it is stored; `sha256` is of the original bytes (32 bytes)."""

    sha256: bytes
    width: int
    height: int
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class PictureRef:
    """A picture a product shows: its content (sha256, 32 bytes) and where it came from."""

    sha256: bytes
    uri: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Which products may match: columns and attributes that must equal a value.

    An empty filter lets all pass. `attributes` compares with the text of a jsonb key.
    """

    columns: Mapping[str, str | int | Decimal] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.columns or self.attributes)


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: exactly one of picture (file bytes), sku, words, vector.

    `vector` is a unit vector of the model whose id is `model_id`; it searches under no other.
    `k` is how many products to return (1 to Settings.max_k).
    """

    picture: bytes | None = None
    sku: str | None = None
    words: str | None = None
    vector: Vector | None = None
    model_id: int | None = None
    k: int = 10
    filters: Filters = field(default_factory=Filters)
    stranger: bool = False
    """The picture comes from somebody unknown: decode it in a process of its own."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A product's picture and its cosine distance to the query (0 identical, 2 opposite)."""

    product_id: int
    picture_id: int
    distance: float

    @property
    def similarity(self) -> float:
        """Cosine similarity, -1 to 1, higher is better."""
        return 1.0 - self.distance


@dataclass(frozen=True, slots=True)
class Match:
    """A product that was found, by its most similar picture."""

    rank: int
    product: Product
    product_id: int
    picture_id: int
    similarity: float
    image: str
    """Where the picture came from, as the catalogue names it."""
    thumbnail: bytes
    means: Meaning | None = None
    """What the similarity amounts to, where the model is calibrated and the query a picture."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How an answer came about."""

    path: SearchPath
    reason: str
    model: str
    build: int | None = None
    delta_rows: int | None = None
    candidates: int = 0
    vanished: int = 0
    shortfall: str | None = None
    replica_lag_s: float | None = None
    """How far a replica is behind, in seconds; None on a primary, 0.0 when it is not behind."""
    ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The matches, best first, and the plan that found them."""

    matches: tuple[Match, ...]
    plan: Plan


@dataclass(frozen=True, slots=True)
class Build:
    """A row of `index_build`: one immutable FAISS index.

    `snapshot` is a pg_snapshot and `in_progress` the xid8[] of transactions it did not see, both
    as PostgreSQL writes them.
    """

    id: int
    model_id: int
    snapshot: str
    in_progress: str
    kind: str
    parameters: Mapping[str, Any]
    rows: int
    sha256: str
    size: int
    recall_at_10: float | None
    recall_at_50: float | None
    recall_sample: int | None
    seconds: float
    state: str
    reason: str | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class CutOff:
    """The cosine distance (0 to 2) up to which a meaning holds; None where it is not known.

    It was fitted from `pairs` pairs of pictures of which the meaning holds and `others` of which
    it does not.
    """

    distance: float | None
    pairs: int
    others: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """A row of `calibration`: the cut-offs of a category, or of the whole catalogue (None).

    Those that are known do not decrease from `same_photo` over `same_product` to `similar`.
    """

    category: str | None
    same_photo: CutOff
    same_product: CutOff
    similar: CutOff
