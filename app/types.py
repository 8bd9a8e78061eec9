"""Shared value types: frozen dataclasses and pure functions on them, without SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

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


SimilarityLabel = Literal["same photo", "same product", "similar"]
"""The meaning of a distance between two pictures, from the strongest claim to the weakest."""


SearchPath = Literal["faiss", "faiss-filtered", "pgvector-hnsw", "exact", "words"]


ReasonCode = Literal["build", "filter", "words", "no_build", "file", "large_delta", "few_nominated"]
"""Why a path answered. The first three are the intended path: a build answered, a filter was
applied (by comparing all that pass, or by a build), the words of the catalogue answered. The others
are fallbacks: no build, its file unreadable, too large a delta, too few usable nominees."""


@dataclass(frozen=True, slots=True)
class Model:
    """A row of `model`: the encoder that a set of embeddings belongs to.

    `source` is the hub name or folder it is loaded from; None if that is `name`.
    """

    id: int
    name: str
    revision: str
    dim: int
    fingerprint: str
    source: str | None = None


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
    original file."""

    sha256: bytes
    width: int
    height: int
    thumbnail: bytes


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


Value = str | int | Decimal


@dataclass(frozen=True, slots=True)
class Filters:
    """Which products may match; every condition must hold, and an empty filter lets all pass.

    A column in `columns` must equal the value, or one of several. `at_least` and `at_most` bound
    `year` and `price`, bounds included. A key in `attributes` must have the value, or one of
    several, as text or as the JSON number, boolean or null that the text spells.
    """

    columns: Mapping[str, Value | Sequence[Value]] = field(default_factory=dict)
    attributes: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    at_least: Mapping[str, int | Decimal] = field(default_factory=dict)
    at_most: Mapping[str, int | Decimal] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.columns or self.attributes or self.at_least or self.at_most)


WordsBy = Literal["model", "catalogue"]


Region = tuple[float, float, float, float]
"""Left, top, right and bottom edge of a part of a picture, as fractions (0 to 1) of its sides."""


@dataclass(frozen=True, slots=True)
class Query:
    """A search request: by pictures, a sku, words or a vector; words may accompany pictures or a
    sku.

    `picture` and `more_pictures` (file bytes) show one object; only the part `region` of `picture`
    is used. Words next to pictures or a sku re-rank what is near these, with the weight
    `words_weight` (0 to 1). Words alone
    are searched by the model's text tower and by full text in the catalogue, and the results are
    fused; `words_by` selects one of the two. `without_pictures` and `without_words` are negative
    examples with the weight `without_weight`. `vector` is a unit vector of the model `model_id` and
    searches only under that model. Without a vector, `model_id` selects a maintained model other
    than the active one.

    `k` is the number of products to return (1 to Settings.max_k), and `shown` the skus of earlier
    pages (`SearchResult.shown`). With `fold`, duplicate products are collapsed into one match.
    `near_query` and `near_match` are near-duplicate distances (cosine, 0 to 2): products at most
    this far from the query, or from a better match, are dropped. Products less similar to the query
    than `min_similarity` (cosine, -1 to 1) are not shown; full-text matches have no similarity.

    With `objects`, a single `picture` without a `region` is searched by its regions too, unless the
    whole picture has a match that leaves no doubt.
    """

    picture: bytes | None = None
    sku: str | None = None
    words: str | None = None
    vector: Vector | None = None
    model_id: int | None = None
    k: int = 10
    filters: Filters = field(default_factory=Filters)
    untrusted: bool = False
    """The pictures come from an untrusted source: decode them in a separate process."""
    more_pictures: tuple[bytes, ...] = ()
    region: Region | None = None
    words_weight: float = 0.5
    words_by: WordsBy | None = None
    without_pictures: tuple[bytes, ...] = ()
    without_words: str | None = None
    without_weight: float = 0.5
    shown: tuple[str, ...] = ()
    fold: bool = False
    near_query: float | None = None
    near_match: float | None = None
    min_similarity: float | None = None
    objects: bool = True


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
class Folded:
    """A product collapsed into a match as its duplicate: by which `rule`, and `like` which sku.

    `evidence` is what shows that the two are one: "words and pictures", "words, no picture to
    compare", "gtin", "mpn", "item group" or "verdict". `distance` is the cosine distance (0 to 2)
    of their nearest pictures; None where one has none to compare.
    """

    product: Product
    rule: str
    like: str
    similarity: float | None = None
    evidence: str = "words and pictures"
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class SimilarListing:
    """A product whose words are those of a match, and the `reason` why it is not the same product.

    The reason is "other pictures", "no picture to compare", "another gtin" or "verdict"; `distance`
    as in `Folded`.
    """

    product: Product
    rule: str
    reason: str
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A product that was left out, by which `rule`.

    `distance` is the cosine distance (0 to 2) to the match `lost_to` (a sku), or to the query if
    that is None.
    """

    sku: str
    rule: str
    distance: float | None
    lost_to: str | None


@dataclass(frozen=True, slots=True)
class Count:
    """A number of products; with `more` there are more than `products`."""

    products: int
    more: bool = False

    def __str__(self) -> str:
        return f"{'more than ' if self.more else ''}{self.products:,}"


@dataclass(frozen=True, slots=True)
class Match:
    """A product in the result, with its most similar picture.

    `similarity` (cosine, -1 to 1) is None if full text found it and there is no vector to compare.
    """

    rank: int
    product: Product
    product_id: int
    picture_id: int
    similarity: float | None
    image: str
    """The uri of the picture."""
    thumbnail: bytes
    folded: tuple[Folded, ...] = ()
    means: SimilarityLabel | None = None
    """The meaning of the similarity, if the model is calibrated and the query is a picture."""
    similar: tuple[SimilarListing, ...] = ()
    """If duplicates are folded: the nearest of the products that have the same words and are not
    the same product."""
    similar_count: int = 0
    """The number of such products in the catalogue. Where more products have these words than are
    compared for a match, those not compared count too."""
    same_picture: Count | None = None
    """How many products show the picture, if these are so many that they are one match."""
    listed: tuple[Product, ...] = ()
    """The first of the other products that show it."""
    similar_more: bool = False
    """Whether there are more than `similar_count`: 1,000 products with these words are counted."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A word that no product has, and the word of the catalogue that was searched instead."""

    typed: str
    read_as: str


@dataclass(frozen=True, slots=True)
class SynonymUsed:
    """A typed word, or words, and what products have that mean the same."""

    word: str
    means: str


@dataclass(frozen=True, slots=True)
class WordsReading:
    """How the catalogue read the words of a query, in a text search configuration (`language`).

    `ignored` are words that no product has and none is spelt like, and words too common to search
    for.
    """

    language: str
    corrected: tuple[Correction, ...] = ()
    synonyms: tuple[SynonymUsed, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnknownValue:
    """A value of a filter that no product has, and the nearest values that products have."""

    column: str
    value: str
    nearest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why fewer products came back than requested: how many each cause excluded.

    `matching` are the products with an embedded picture that meet every condition of the query.
    `words` are those that have its words, whatever the filters say, and `filters` those that pass
    its filters, whatever the words say; None where the query has no such condition (words next to a
    vector rank products and exclude none). `without_picture` meet the conditions, but have no
    picture with an embedding under the model; None if they were not counted.

    The matching products are the `returned` ones and those that were taken away: `below_minimum`
    are less similar than the query's minimum, `unwanted` have a word that was excluded next to a
    picture or a sku, `same_picture` show no other picture than one that very many products show and
    that is one match, `folded` into a match, `like_query` and `like_match`
    near-duplicates of the query or of a better match, `already_shown` the same product as one of an
    earlier page, `earlier` on an earlier page or the product that was asked with. They add up,
    unless a count is "more than", or the page was given up after `gave_up_after` products (0: it
    was not).
    """

    returned: int
    matching: Count
    words: Count | None = None
    filters: Count | None = None
    without_picture: Count | None = Count(0)
    below_minimum: Count = Count(0)
    unwanted: int = 0
    same_picture: Count = Count(0)
    folded: int = 0
    like_query: int = 0
    like_match: int = 0
    already_shown: int = 0
    earlier: int = 0
    gave_up_after: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How an answer came about: the path, and why it was that one.

    `reason` is the sentence to show, `reason_code` what programs decide by.
    """

    path: SearchPath
    reason: str
    reason_code: ReasonCode
    model: str
    build: int | None = None
    built_at: datetime | None = None
    delta_rows: int | None = None
    candidates: int = 0
    vanished: int = 0
    shortfall: str | None = None
    """Why fewer products came back than requested, in sentences; None if k came back."""
    shortfall_counts: Shortfall | None = None
    words: str | None = None
    """What searched by the words: "model", "catalogue", "model and catalogue"; None without
    words."""
    reading: WordsReading | None = None
    """How the catalogue read the words; None if it did not."""
    unknown: tuple[UnknownValue, ...] = ()
    """Values of filters that no product has."""
    not_tried: tuple[str, ...] = ()
    """What was not compared because it would take too long, in sentences."""
    replica_lag_s: float | None = None
    """Seconds that a replica is behind its primary; None on a primary."""
    ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RegionMatches:
    """A part of the query's picture that shows an object, and its matches, best first.

    `confidence` is the estimated probability (0 to 1) that the object's product is in the
    catalogue, None where the model has no calibration.
    """

    box: Region
    confidence: float | None
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The matches, best first, the products dropped among them, and the plan.

    `regions` are the objects found in the picture, the surest first; empty where the picture was
    searched as a whole only. Each of `matches` is a match of the whole picture or of a region.
    `confidence` is the estimated probability (0 to 1) that the product shown is in the catalogue,
    and `close` whether that is likely enough; both None where the query is not a picture alone or
    the model has no calibration.
    """

    matches: tuple[Match, ...]
    plan: Plan
    dropped: tuple[Dropped, ...] = ()
    regions: tuple[RegionMatches, ...] = ()
    confidence: float | None = None
    close: bool | None = None

    @property
    def shown(self) -> tuple[str, ...]:
        """The skus of this page, including folded ones; the next page adds them to
        `Query.shown`."""
        folded = (fold.product.sku for match in self.matches for fold in match.folded)
        return (*(match.product.sku for match in self.matches), *folded)


@dataclass(frozen=True, slots=True)
class Build:
    """A row of `index_build`: one immutable FAISS index.

    `snapshot` is a pg_snapshot, and `in_progress` the xid8[] of the transactions that were open in
    it; both in PostgreSQL's text format.
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
    recall_filtered: float | None
    recall_sample: int | None
    seconds: float
    state: str
    reason: str | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Crossovers:
    """The limits between the paths of a filtered search.

    If at most `exact_pictures` pictures pass, SQL compares them all. If at least the share
    `deep_share` (0 to 1) of the products passes, the index is searched deeper and filtered
    afterwards. In between, the index searches only among the pictures that pass.
    """

    exact_pictures: int = 500
    deep_share: float = 0.1


@dataclass(frozen=True, slots=True)
class CutOff:
    """The cosine distance (0 to 2) up to which a meaning holds; None if unknown.

    Fitted from `pairs` pairs of pictures for which the meaning holds, and `others` for which it
    does not.
    """

    distance: float | None
    pairs: int
    others: int


@dataclass(frozen=True, slots=True)
class CloseCut:
    """The best cosine similarity (-1 to 1) below which a photo has no close match; None if unknown.

    The probability that the product shown is in the catalogue is
    1 / (1 + exp((midpoint - best similarity) / width)). Fitted from `present` photos of products in
    the catalogue and `absent` ones asked without the category of their product. `detected` and
    `false_alarms` are the shares (0 to 1) of both that are below a similarity that was fitted
    without them.
    """

    similarity: float | None
    midpoint: float | None
    width: float | None
    present: int
    absent: int
    detected: float | None
    false_alarms: float | None


UNKNOWN_CLOSE_CUT = CloseCut(None, None, None, 0, 0, None, None)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A row of `calibration`: the cut-offs of a category, or of the whole catalogue (None).

    Known cut-offs of labels do not decrease from `same_photo` to `same_product` to `similar`.
    """

    category: str | None
    same_photo: CutOff
    same_product: CutOff
    similar: CutOff
    close: CloseCut = UNKNOWN_CLOSE_CUT


LABEL_FIELDS: Mapping[SimilarityLabel, str] = {
    "same photo": "same_photo",
    "same product": "same_product",
    "similar": "similar",
}
"""The labels from the strongest to the weakest, with the field of their cut-off."""


def label_for(
    distance: float, category: str | None, calibrations: Mapping[str | None, Calibration]
) -> SimilarityLabel | None:
    """The strongest label that holds at a cosine distance (0 to 2), or None.

    `calibrations` are the rows of one model by category. The cut-off of a category takes precedence
    over that of the whole catalogue (None).
    """
    rows = [row for row in map(calibrations.get, (category, None)) if row is not None]
    for label, field_name in LABEL_FIELDS.items():
        cut_offs = (getattr(row, field_name).distance for row in rows)
        cut_off = next((each for each in cut_offs if each is not None), None)
        if cut_off is not None and distance <= cut_off:
            return label
    return None


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
