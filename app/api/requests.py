"""The JSON that requests hold, and how it becomes a query of the search service.

Unknown fields are refused, and values are not converted: a number in quotes is no number.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cached_property
from typing import Annotated, Literal, Self
from urllib.parse import unquote

import numpy as np
from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.search.filters import parse
from app.search.stored_photos import StoredPhotos
from app.search.vector_cache import VectorCache
from app.types import Query, Region, Vector, WordsLanguage

MAX_BATCH = 100
"""Queries of a batch."""

MAX_PHOTOS = 10
"""Photos of one object, and as many that the results should not resemble."""

PhotoId = Annotated[str, Field(min_length=1, max_length=64, description="from POST /v1/photos")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Distance = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Sku = Annotated[str, Field(min_length=1, max_length=500)]
SkuInPath = Annotated[
    str, AfterValidator(unquote), Path(description="a slash in it is sent as %2F")
]
"""A sku in the path of an address, as `middleware.routed_path` leaves it."""

Packed = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=22_000)]
"""A vector of at most 4,000 numbers in base64."""

Words = Annotated[str, Field(min_length=1, max_length=1000)]
Condition = Annotated[str, Field(min_length=1, max_length=1000)]

FILTERS = (
    "conditions that all must hold: brand=Kestrel, year>=2019, price=10..20, or an attribute such "
    "as material=wool; a name that is repeated allows another value"
)

TEXT_LANGUAGE = Field(
    default=None, description="de: the text is German where it could be English too, and misspelt "
    "German words are corrected"
)  # fmt: skip


class Strict(BaseModel):
    """A JSON object that has these fields only."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Options(Strict):
    """What may be added to any search."""

    text: Words | None = Field(
        default=None, description="words to search for; with a photo or sku, what should differ"
    )
    text_weight: Share = Field(default=0.5, description="weight of words beside a photo or sku")
    text_by: Literal["model", "catalogue"] | None = Field(
        default=None, description="what reads the words; null: both, where the model reads words"
    )
    text_language: WordsLanguage | None = TEXT_LANGUAGE
    region: Annotated[list[Share], Field(min_length=4, max_length=4)] | None = Field(
        default=None,
        description="left, top, right and bottom edge of the part of the photo to search with, as "
        "fractions of its sides; of a stored photo it is cut from the preview",
    )
    objects: bool = Field(default=True, description="search a photo by its objects too")
    also: Annotated[list[PhotoId], Field(max_length=MAX_PHOTOS)] = Field(
        default=[], description="stored photos of the same object"
    )
    not_like: Annotated[list[PhotoId], Field(max_length=MAX_PHOTOS)] = Field(
        default=[], description="stored photos that results should not resemble"
    )
    not_text: Words | None = Field(
        default=None, description="words that should not describe the results"
    )
    not_weight: Share = Field(default=0.5, description="weight of not_like and not_text")
    filters: Annotated[list[Condition], Field(max_length=50)] = Field(
        default=[], description=FILTERS, examples=[["brand=Kestrel", "year>=2019"]]
    )
    k: int = Field(default=10, ge=1, le=1000, description="products of a page")
    fold: bool = Field(default=True, description="collapse duplicate products into one match")
    listings: bool = Field(
        default=False, description="with fold: read the similar listings, which are counted anyway"
    )
    near_query: Distance | None = Field(
        default=None, description="drop products at most this far (cosine) from the query"
    )
    near_match: Distance | None = Field(
        default=None, description="drop products at most this far (cosine) from a better match"
    )
    min_similarity: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="drop products less similar (cosine) than this"
    )
    cursor: Annotated[str, Field(max_length=200_000)] | None = Field(
        default=None, description="of the page before this one; all else as for that page"
    )


class PhotoQuery(Options):
    """What a search with the photo of the same form is."""


class SearchQuery(Options):
    """A search by a stored photo, a product, words or a vector."""

    photo_id: PhotoId | None = Field(default=None, description="a stored photo to search with")
    sku: Sku | None = Field(default=None, description="a product to find similar ones of")
    vector: Annotated[list[Finite], Field(min_length=1, max_length=4000)] | Packed | None = Field(
        default=None,
        description="a vector of `model`; it is brought to unit length. In place of a list of "
        "numbers: their bytes in base64, little-endian, as `vector_type` says",
    )
    vector_type: Literal["float32", "float16"] = Field(
        default="float32", description="the numbers of a vector in base64"
    )
    model: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(
        default=None, description="the name of a model that is kept up to date; null: the active"
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        asked = (self.photo_id, self.sku, self.text, self.vector)
        if all(each is None for each in asked) and not self.also:
            raise ValueError("give at least one of photo_id, sku, text and vector")
        if self.vector is not None and self.model is None:
            raise ValueError("a vector needs the model that it is of")
        if self.photo_id is not None and self.model is not None:
            raise ValueError("a stored photo is searched under the active model; leave out model")
        if isinstance(self.vector, str) and not np.isfinite(self.numbers).all():
            raise ValueError("the vector has numbers that are not finite")
        return self

    @cached_property
    def numbers(self) -> Vector:
        """The vector as it was sent, shape (dim,), float32; empty without one."""
        if not isinstance(self.vector, str):
            return np.array(self.vector or (), dtype=np.float32)
        data = base64.b64decode(self.vector, validate=True)
        if not data or len(data) % np.dtype(self.vector_type).itemsize:
            raise ValueError(f"the vector is not the bytes of {self.vector_type} numbers")
        return np.frombuffer(data, np.dtype(self.vector_type).newbyteorder("<")).astype(np.float32)


class BatchQuery(Strict):
    """Searches that are answered in their order, each as if it were sent alone."""

    queries: Annotated[list[SearchQuery], Field(min_length=1, max_length=MAX_BATCH)]


class Parameters(BaseModel):
    """Parameters of an address; others are refused."""

    model_config = ConfigDict(extra="forbid")


class SimilarParameters(Parameters):
    """Parameters of the list of similar products."""

    k: int = Field(default=10, ge=1, le=1000)
    filter: list[Condition] = Field(default=[], max_length=50, description=FILTERS)
    min_similarity: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    fold: bool = True


class FacetParameters(Parameters):
    """Parameters of facets: filters, and what is searched for, if anything."""

    filter: list[Condition] = Field(default=[], max_length=50, description=FILTERS)
    photo_id: PhotoId | None = None
    sku: Sku | None = None
    text: Words | None = None
    text_language: WordsLanguage | None = TEXT_LANGUAGE
    min_similarity: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None


def photo_query(asked: PhotoQuery, photo: bytes, photos: StoredPhotos, cache: VectorCache) -> Query:
    """The query of a photo (file bytes) and its options; vectors of stored photos are in `cache`.

    Raises BadInput and UnknownPhoto.
    """
    return _query(asked, photos, cache, picture=photo)


def search_query(
    asked: SearchQuery, model_id: int | None, photos: StoredPhotos, cache: VectorCache
) -> Query:
    """The query of a search; vectors of stored photos are in `cache`.

    `model_id` is the id of the model that is named. Raises BadInput and UnknownPhoto.
    """
    picture = None
    if asked.photo_id is not None:
        picture = photos.load(
            asked.photo_id, cache, _region(asked), by_object=asked.objects and not asked.also
        )
    vector = None if asked.vector is None else asked.numbers
    return _query(
        asked, photos, cache, picture=picture, sku=asked.sku, vector=vector, model_id=model_id
    )


def fingerprint(asked: Options, photo: bytes | None = None) -> bytes:
    """What is searched for, apart from the page: 16 bytes, equal for pages of one search."""
    fields = asked.model_dump_json(exclude={"cursor", "k", "vector"})
    digest = hashlib.sha256(fields.encode())
    if isinstance(asked, SearchQuery) and asked.vector is not None:
        digest.update(asked.numbers.tobytes())
    if photo is not None:
        digest.update(hashlib.sha256(photo).digest())
    return digest.digest()[:16]


def _query(
    asked: Options,
    photos: StoredPhotos,
    cache: VectorCache,
    *,
    picture: bytes | None,
    sku: str | None = None,
    vector: np.ndarray | None = None,
    model_id: int | None = None,
) -> Query:
    return Query(
        picture=picture,
        sku=sku,
        words=asked.text,
        vector=vector,
        model_id=model_id,
        k=asked.k,
        filters=parse(asked.filters),
        untrusted=True,
        more_pictures=tuple(photos.load(each, cache) for each in asked.also),
        region=_region(asked),
        words_weight=asked.text_weight,
        words_by=asked.text_by,
        words_language=asked.text_language,
        without_pictures=tuple(photos.load(each, cache) for each in asked.not_like),
        without_words=asked.not_text,
        without_weight=asked.not_weight,
        fold=asked.fold,
        listings=asked.listings,
        near_query=asked.near_query,
        near_match=asked.near_match,
        min_similarity=asked.min_similarity,
        objects=asked.objects,
    )


def _region(asked: Options) -> Region | None:
    if asked.region is None:
        return None
    left, top, right, bottom = asked.region
    return left, top, right, bottom
