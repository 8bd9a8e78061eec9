"""Finds the objects in a photo by searching its windows.

The windows' vectors come from one feature map and are compared with the pictures of the catalogue
(`region_comparison`). The best windows that do not overlap are then encoded exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.config import Settings
from app.db.queries.vector_lists import Lead
from app.index.faiss_library import best_products
from app.index.file_store import IndexFiles
from app.search.query_encoder import EncodedQuery, QueryEncoder, round_query, unit_direction
from app.search.region_comparison import Comparison, SnapshotComparison
from app.search.vector_cache import PhotoObject, PhotoObjects, QueryPicture, VectorCache
from app.search.windows import Windows, nominating, on_grid, overlaps, suppress
from app.types import Match, Model, Query, Region, Vector, Vectors
from app.vectors import cosines, round_to_float16, to_float32

NEIGHBOURS = 4
"""Windows that an object is searched by: the chosen one and the most similar ones around it."""

NEIGHBOUR_OVERLAP = 0.3
"""Intersection over union with the chosen window from which on a window is a neighbour."""

FRAME_SHARE = 0.8
"""Share of the chosen window's score from which on a neighbour's edges count in an object's frame.
A window alone cuts most objects (decision 34, *Frames*)."""


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """When a model's objects are searched, and when they count.

    From the cosine similarity `sure` of a whole picture to a product's on, its regions are not
    searched. `most` objects are; the first `merged` of them count in the merged list if the best
    similarity of the first, less that of the whole picture, plus the share `gain` of what its best
    match is more similar to it than to the whole, is at least `lead` (None: always); all others are
    only regions. The first `exact` objects are encoded as pictures of their own too: a search
    then costs at most five encodes, with the whole and the map, which costs two under version 2 of
    the embedded encoder and three under others.
    """

    sure: float = 0.7
    lead: float | None = None
    gain: float = 0.0
    exact: int = 1
    most: int = 2
    merged: int = 2


LIMITS: Mapping[tuple[str, str], ObjectLimits] = {
    ("embedded", "2-"): ObjectLimits(sure=0.65, lead=0.44, gain=0.5, exact=2, most=4),
}
"""Limits by the beginnings of the model's name and revision, fitted by `bench/search/objects.py`.
The defaults were fitted for version 1 of the embedded encoder."""


def limits_of(model: Model) -> ObjectLimits:
    """The limits of a model; of a fitted one those of the model it follows."""
    own_name, own_revision = model.network
    for (name, revision), limits in LIMITS.items():
        if own_name.startswith(name) and own_revision.startswith(revision):
            return limits
    return ObjectLimits()


@dataclass(frozen=True, slots=True)
class ChosenWindow:
    """A window that shows an object: its index, the score it was chosen by, the indices of the
    windows to search by, its own first, and the object's `frame`, which is more seldom cut than the
    window's own."""

    index: int
    score: float
    neighbours: tuple[int, ...]
    frame: Region


def choose_windows(
    regions: Sequence[Region], scores: NDArray[np.float64], most: int
) -> list[ChosenWindow]:
    """The `most` windows with the best scores, shape (n,), that do not overlap; best first."""
    ranked = np.argsort(-scores, kind="stable")
    edges = np.asarray(regions, np.float64).reshape(-1, 4)
    chosen = []
    for index in suppress(regions, scores.tolist(), most):
        near = overlaps(regions[index], regions) > NEIGHBOUR_OVERLAP
        neighbours = tuple(ranked[near[ranked]][:NEIGHBOURS].tolist())
        good = scores >= scores[index] - (1 - FRAME_SHARE) * abs(scores[index])
        frame = on_grid(edges[near & good].mean(axis=0))
        chosen.append(ChosenWindow(index, float(scores[index]), neighbours, frame))
    return chosen


def object_vectors(
    windows: Windows, chosen: ChosenWindow, crop: Vector | None
) -> tuple[Vector, ...]:
    """The unit vectors (dim,) to search an object by: those of its windows, which see the
    surroundings, each averaged with that of its exact `crop`, which does not, if there is one."""
    vectors = [windows.vectors[each] for each in chosen.neighbours]
    if crop is not None:
        vectors = [unit_direction(vector + crop) for vector in vectors]
    return tuple(vectors)


def best_windows(
    comparison: Comparison, windows: Windows, whole: Vector
) -> list[ChosenWindow] | None:
    """The windows that are most similar to a picture of the catalogue and do not overlap.

    For models with a lead, those that are more similar to a picture than the `whole` photo, shape
    (dim,), by most: what the photo shows everywhere is no object. Pictures are nominated for some
    windows, and compared with all. None where they cannot be compared, empty where no picture is
    there to compare with.
    """
    limits = limits_of(comparison.model)
    leads = limits.lead is not None
    asking = windows.vectors[nominating(windows.regions)]
    pictures = comparison.pictures(_gained(asking, whole) if leads else asking)
    if pictures is None:
        return None
    if not len(pictures):
        return []
    compared = windows.vectors - whole if leads else windows.vectors
    scores = best_products(compared, to_float32(pictures)).astype(np.float64)
    return choose_windows(windows.regions, scores, limits.most)


def _gained(vectors: Vectors, whole: Vector) -> Vectors:
    """The directions in which vectors (n, dim) gain over `whole`, (dim,), at unit length: what is
    nearest to them is what the vectors are more similar to by most."""
    differences = vectors - whole
    lengths = np.linalg.norm(differences, axis=1, keepdims=True)
    return np.where(lengths > 1e-6, differences / np.maximum(lengths, 1e-6), vectors)


class ObjectFinder:
    """Finds the objects in pictures of queries. Thread-safe. `limits` gives those of a model."""

    def __init__(
        self,
        encoder: QueryEncoder,
        files: IndexFiles,
        settings: Settings,
        limits: Callable[[Model], ObjectLimits] = limits_of,
    ) -> None:
        self._encoder = encoder
        self._files = files
        self._settings = settings
        self._limits = limits

    def in_snapshot(self, connection: Connection, model: Model) -> Comparison:
        """Compares in the snapshot of a connection."""
        return SnapshotComparison(connection, model, self._files, self._settings)

    def applies(self, query: Query, encoded: EncodedQuery) -> bool:
        """Whether the regions of the query's picture may be searched."""
        single = query.picture is not None and query.region is None and not query.more_pictures
        return query.objects and single and encoded.maps_regions

    def known(self, query: Query, model: Model, cache: VectorCache) -> PhotoObjects | None:
        """What was found in the query's picture before, as long as it is in the cache; None also
        where nothing could be compared then."""
        found = cache.get_objects(_picture(query), model.fingerprint)
        return found if found is not None and found.compared else None

    def keep(self, query: Query, model: Model, cache: VectorCache, found: PhotoObjects) -> None:
        """Keep what was found in the query's picture in the cache."""
        cache.put_objects(_picture(query), model.fingerprint, found)

    def is_sure(self, similarity: float, model: Model) -> bool:
        """Whether the best similarity of the whole picture leaves no doubt, so that the regions are
        not searched."""
        return similarity >= self._limits(model).sure

    def lead(self, model: Model) -> Lead | None:
        """How the first object has to lead the whole picture; None: objects count always."""
        limits = self._limits(model)
        return None if limits.lead is None else Lead(limits.lead, limits.gain)

    def find(
        self,
        comparison: Comparison,
        query: Query,
        encoded: EncodedQuery,
        cache: VectorCache,
    ) -> PhotoObjects:
        """What is in the query's picture, found once for each picture in the cache."""
        model = comparison.model
        found = self.known(query, model, cache)
        if found is None:
            whole = encoded.pictures[0]
            found = self.look(comparison, query, whole, cache)
            if found.objects and (lead := self.lead(model)) is not None:
                found = with_lead(found, leads=_has_lead(comparison, found, whole, lead))
            self.keep(query, model, cache, found)
        return found

    def look(
        self, comparison: Comparison, query: Query, whole: Vector, cache: VectorCache
    ) -> PhotoObjects:
        """What is in the query's picture, whose vector as a whole is `whole`, shape (dim,); whether
        its objects lead is not decided yet."""
        model = comparison.model
        nearest = comparison.nearest(whole)
        if not nearest or self.is_sure(nearest[0], model):
            return PhotoObjects(nearest[0] if nearest else -1.0)
        windows = self._encoder.map_windows(query, model.fingerprint, cache)
        if windows is None:
            return PhotoObjects(nearest[0])
        chosen = best_windows(comparison, windows, whole)
        if chosen is None:
            return replace(seen_photo(nearest, windows, whole), compared=False)
        objects = self._exact(query, windows, chosen, self._limits(model), cache)
        return replace(seen_photo(nearest, windows, whole), objects=objects)

    def _exact(
        self,
        query: Query,
        windows: Windows,
        chosen: Sequence[ChosenWindow],
        limits: ObjectLimits,
        cache: VectorCache,
    ) -> tuple[PhotoObject, ...]:
        """The objects in the chosen windows, the first of them encoded as pictures of their own."""
        cut = [windows.regions[each.index] for each in chosen[: limits.exact]]
        crops = self._encoder.encode_regions(query, cut, cache) if cut else ()
        return tuple(
            PhotoObject(
                each.frame, object_vectors(windows, each, crop), each.score, place < limits.merged
            )
            for place, (each, crop) in enumerate(zip_longest(chosen, crops))
        )


def seen_photo(nearest: Sequence[float], windows: Windows, whole: Vector) -> PhotoObjects:
    """A photo with what tells whether a product fills it, before its objects are chosen; `nearest`
    as of `Comparison`, at least one."""
    return PhotoObjects(
        nearest[0], texture=windows.texture, alike=windows.alike,
        border=windows.border_likeness(whole), fifth=nearest[-1],
    )  # fmt: skip


def photo_objects(
    query: Query, matches: Sequence[Match], model: Model, cache: VectorCache
) -> PhotoObjects | None:
    """What was found in the query's picture, by its matches alone where no objects were searched;
    None for a part of a picture, and without matches."""
    if query.region is not None or not matches or matches[0].similarity is None:
        return None
    found = cache.get_objects(_picture(query), model.fingerprint)
    return found or PhotoObjects(matches[0].similarity)


def with_lead(found: PhotoObjects, *, leads: bool) -> PhotoObjects:
    """The same for a model with a lead: only if its objects lead, those count in the merged list
    that may."""
    marked = tuple(replace(each, merged=leads and each.merged) for each in found.objects)
    return replace(found, objects=marked, leads=leads)


def _has_lead(comparison: Comparison, found: PhotoObjects, whole: Vector, lead: Lead) -> bool:
    """Whether the first object has the lead, as `vector_lists` decides it."""
    first = np.stack(found.objects[0].vectors)
    pictures = comparison.pictures(first)
    if pictures is None or not len(pictures):
        return False
    vectors = round_to_float16(np.vstack([first, whole]))
    similarities = cosines(pictures, vectors)
    own = similarities[:, :-1].max(axis=1)
    best = int(own.argmax())
    gain = own[best] - similarities[best, -1]
    return bool(own[best] - found.whole + lead.gain * gain >= lead.least)


def directions(
    found: PhotoObject, query: Query, encoded: EncodedQuery, model: Model
) -> tuple[Vector, ...]:
    """The query vectors of an object: each of its vectors in place of the picture's."""
    return tuple(
        round_query(replace(encoded, pictures=(vector,)).direction(query), model)
        for vector in found.vectors
    )


def _picture(query: Query) -> QueryPicture:
    assert query.picture is not None
    return QueryPicture(query.picture)
