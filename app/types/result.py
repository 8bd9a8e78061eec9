"""What a search returns: matches, the plan that found them, and reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from app.types.catalogue import Product
from app.types.query import Region

SimilarityLabel = Literal["same photo", "same product", "similar"]
"""The meaning of a distance between two pictures, from the strongest claim to the weakest."""


SearchPath = Literal["faiss", "faiss-filtered", "pgvector", "exact", "words"]


ReasonCode = Literal[
    "build", "filter", "words", "no_build", "file", "part", "large_delta", "few_nominated"
]
"""Why a path answered. The first three are the intended path: a build answered, a filter was
applied (by comparing all that pass, or by a build), the words of the catalogue answered. The others
are fallbacks: no build, its file unreadable, a part of it that did not answer, too large a delta,
too few usable nominees."""


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


ALREADY_SHOWN = "the same product as one shown before"
"""The rule of a product that is dropped because an earlier page shows one of its group."""


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
    """If duplicates are folded and `Query.listings` asks for it: the nearest of the products that
    have the same words and are not the same product."""
    similar_count: int = 0
    """The number of products in the catalogue that have the same words and are not folded into the
    match. Where they were read, those that are the same product all the same do not count."""
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
    for; `unknown` are those of them that the text side of the embedded encoder has no idea of
    either. `excluded` are the words of products that are left out, German ones in English too.
    """

    language: str
    corrected: tuple[Correction, ...] = ()
    synonyms: tuple[SynonymUsed, ...] = ()
    ignored: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


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
        """The skus of this page, including folded ones and those that it dropped because an earlier
        page had shown the same product; the next page adds them to `Query.shown`, and need not
        find them again."""
        folded = (fold.product.sku for match in self.matches for fold in match.folded)
        return (*(match.product.sku for match in self.matches), *folded, *self._shown_again)

    @property
    def gave_up(self) -> bool:
        """Whether the page is short because the search for more took too long, and a further page
        goes on. After a page that showed nothing new it would only repeat the search."""
        return self._is_stopped and bool(self.shown)

    @property
    def _is_stopped(self) -> bool:
        short = self.plan.shortfall_counts
        return short is not None and short.gave_up_after > 0

    @property
    def _shown_again(self) -> tuple[str, ...]:
        """The products that were dropped because an earlier page had shown them."""
        return tuple(drop.sku for drop in self.dropped if drop.rule == ALREADY_SHOWN)
