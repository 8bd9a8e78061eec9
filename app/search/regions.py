"""Finds the objects in a photo by searching its windows.

The windows' vectors come from one feature map, the index nominates pictures for all of them in one
call, and PostgreSQL compares them in one statement. The best windows that do not overlap are then
encoded exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.config import Settings
from app.db.queries import window_matches
from app.index.file_store import IndexFiles
from app.search import planner
from app.search.query_encoder import EncodedQuery, QueryEncoder, round_query, unit_direction
from app.search.retrieval import OpenBuild, RetrievalRequest, open_build
from app.search.vector_cache import PhotoObject, PhotoObjects, QueryPicture, VectorCache
from app.search.windows import Windows, overlaps, suppress
from app.types import Match, Model, Query, Region, Vector, Vectors
from app.vectors import round_to_float16, unit_rows

NOMINEES = 4
"""Pictures that the index nominates for each window."""

MAX_OBJECTS = 2
"""Objects of a photo that are searched."""

NEIGHBOURS = 4
"""Windows that an object is searched by: the chosen one and the most similar ones around it."""

NEIGHBOUR_OVERLAP = 0.3
"""Intersection over union with the chosen window from which on a window is a neighbour."""


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """When a model's objects are searched, and when they count.

    From the cosine similarity `sure` of a whole picture to a product's on, its regions are not
    searched. Objects count in the merged list if the best similarity of the first is above that of
    the whole picture by `lead`, else only as regions; None: always. The first `exact` objects are
    encoded as pictures of their own too: a search then costs at most five encodes, with the whole
    and the map, which costs two under version 2 of the embedded encoder and three under others.
    """

    sure: float = 0.7
    lead: float | None = None
    exact: int = 1


LIMITS: Mapping[tuple[str, str], ObjectLimits] = {
    ("embedded", "2-"): ObjectLimits(sure=0.65, lead=0.24, exact=2),
}
"""Limits by the beginnings of the model's name and revision, fitted by `bench/search/objects.py`.
The defaults were fitted for version 1 of the embedded encoder."""


def limits_of(model: Model) -> ObjectLimits:
    """The limits of a model."""
    for (name, revision), limits in LIMITS.items():
        if model.name.startswith(name) and model.revision.startswith(revision):
            return limits
    return ObjectLimits()


@dataclass(frozen=True, slots=True)
class ChosenWindow:
    """A window that shows an object: its index, the score it was chosen by, and the indices of the
    windows to search by, its own first."""

    index: int
    score: float
    neighbours: tuple[int, ...]


def choose_windows(regions: Sequence[Region], scores: NDArray[np.float64]) -> list[ChosenWindow]:
    """The windows with the best scores, shape (n,), that do not overlap; best first."""
    ranked = np.argsort(-scores, kind="stable")
    chosen = []
    for index in suppress(regions, scores.tolist(), MAX_OBJECTS):
        near = overlaps(regions[index], regions) > NEIGHBOUR_OVERLAP
        neighbours = tuple(int(each) for each in ranked if near[each])[:NEIGHBOURS]
        chosen.append(ChosenWindow(index, float(scores[index]), neighbours))
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
    connection: Connection,
    model: Model,
    windows: Windows,
    whole: Vector,
    files: IndexFiles,
    settings: Settings,
) -> list[ChosenWindow]:
    """The windows that are most similar to a picture of the catalogue and do not overlap.

    For models with a lead, those that are more similar to a picture than the `whole` photo, shape
    (dim,), by most: what the photo shows everywhere is no object. Empty where more embeddings
    changed since the build than the settings allow, and where there is neither a build nor a small
    catalogue.
    """
    leads = limits_of(model).lead is not None
    near = _gained(windows.vectors, whole) if leads else windows.vectors
    found = _compared(connection, model, windows.vectors, near, whole, files, settings)
    if found is None or not len(found[0]) or found[0].max() <= -1:
        return []
    similarities, gains = found
    return choose_windows(windows.regions, gains if leads else similarities)


def _gained(vectors: Vectors, whole: Vector) -> Vectors:
    """The directions in which vectors (n, dim) gain over `whole`, (dim,), at unit length: what is
    nearest to them is what the vectors are more similar to by most."""
    differences = vectors - whole
    lengths = np.linalg.norm(differences, axis=1, keepdims=True)
    return np.where(lengths > 1e-6, differences / np.maximum(lengths, 1e-6), vectors)


def _compared(
    connection: Connection,
    model: Model,
    directions: Vectors,
    near: Vectors,
    whole: Vector,
    files: IndexFiles,
    settings: Settings,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The best cosine similarity of each unit vector (n, dim) to a picture of the catalogue, (n,),
    and by how much at most it is more similar to one than `whole`, (n,).

    Compared are the pictures nearest to `near`, unit vectors (n, dim), and those that the build
    does not hold. None where more embeddings changed since the build than the settings allow, and
    where there is neither a build nor a small catalogue.
    """
    vectors = round_to_float16(directions)
    request = RetrievalRequest(model, vectors[0], 1, connection=connection)
    opened = open_build(request, files)
    build, max_fresh = None, settings.exact_rows
    nominated = np.empty((len(vectors), 0), np.int64)
    if isinstance(opened, OpenBuild):
        build, max_fresh = opened.build, settings.max_delta_rows
        count = min(NOMINEES, opened.index.rows)
        _, nominated = opened.index.search(unit_rows(round_to_float16(near)), count)
    return window_matches.best_similarities(
        connection, model, build, vectors, nominated, round_query(whole, model), max_fresh=max_fresh
    )


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

    def is_whole(
        self,
        query: Query,
        encoded: EncodedQuery,
        matches: Sequence[Match],
        model: Model,
        cache: VectorCache,
    ) -> bool:
        """Whether the matches of the whole picture are the answer: its regions are not to be
        searched, or the best match leaves no doubt."""
        if not _applies(query, encoded):
            return True
        picture = _picture(query)
        found = cache.get_objects(picture, model.fingerprint)
        # Other parts of the query change the similarities, and a filter the best of them.
        alone = not (query.filters or encoded.words is not None or encoded.without)
        if found is None and alone and matches:
            best = matches[0].similarity or 0.0
            if best >= self._limits(model).sure:
                found = PhotoObjects(best)
                cache.put_objects(picture, model.fingerprint, found)
        return found is not None and not found.objects

    def find(
        self,
        connection: Connection,
        model: Model,
        query: Query,
        encoded: EncodedQuery,
        cache: VectorCache,
    ) -> tuple[PhotoObject, ...]:
        """The objects of the query's picture, none where it is searched as a whole; found once for
        each picture in the cache."""
        if not _applies(query, encoded):
            return ()
        picture = _picture(query)
        found = cache.get_objects(picture, model.fingerprint)
        if found is None:
            found = self._find(connection, model, query, encoded.pictures[0], cache)
            cache.put_objects(picture, model.fingerprint, found)
        return found.objects

    def _find(
        self,
        connection: Connection,
        model: Model,
        query: Query,
        whole: Vector,
        cache: VectorCache,
    ) -> PhotoObjects:
        """The objects of the query's picture, whose vector as a whole is `whole`, shape (dim,)."""
        request = RetrievalRequest(model, round_query(whole, model), 1, connection=connection)
        hits = planner.find(request, self._files, self._settings).candidates.hits
        similarity = hits[0].similarity if hits else -1.0
        if not hits or similarity >= self._limits(model).sure:
            return PhotoObjects(similarity)
        windows = self._encoder.map_windows(query, model.fingerprint, cache)
        if windows is None:
            return PhotoObjects(similarity)
        chosen = best_windows(connection, model, windows, whole, self._files, self._settings)
        objects = self._exact(query, windows, chosen, self._limits(model).exact, cache)
        leads = self._lead(connection, model, whole, similarity, objects)
        if leads is None:
            return PhotoObjects(similarity, objects, windows.texture)
        marked = tuple(replace(each, merged=leads) for each in objects)
        return PhotoObjects(similarity, marked, windows.texture, leads)

    def _lead(
        self,
        connection: Connection,
        model: Model,
        whole: Vector,
        similarity: float,
        objects: Sequence[PhotoObject],
    ) -> bool | None:
        """Whether the first object leads the whole photo, without which no object counts in the
        merged list; None for a model without a lead, and without objects."""
        lead = self._limits(model).lead
        if lead is None or not objects:
            return None
        vectors = np.stack(objects[0].vectors)
        found = _compared(connection, model, vectors, vectors, whole, self._files, self._settings)
        return bool(found is not None and found[0].max() >= similarity + lead)

    def _exact(
        self,
        query: Query,
        windows: Windows,
        chosen: Sequence[ChosenWindow],
        exact: int,
        cache: VectorCache,
    ) -> tuple[PhotoObject, ...]:
        """The objects in the chosen windows, the first `exact` of them encoded as pictures of their
        own."""
        boxes = [windows.regions[each.index] for each in chosen]
        cut = boxes[:exact]
        crops = self._encoder.encode_regions(query, cut, cache) if cut else ()
        return tuple(
            PhotoObject(box, object_vectors(windows, each, crop), each.score)
            for each, box, crop in zip_longest(chosen, boxes, crops)
        )


def photo_objects(
    query: Query, matches: Sequence[Match], model: Model, cache: VectorCache
) -> PhotoObjects | None:
    """What was found in the query's picture, by its matches alone where no objects were searched;
    None for a part of a picture, and without matches."""
    if query.region is not None or not matches or matches[0].similarity is None:
        return None
    found = cache.get_objects(_picture(query), model.fingerprint)
    return found or PhotoObjects(matches[0].similarity)


def _applies(query: Query, encoded: EncodedQuery) -> bool:
    """Whether the regions of the query's picture may be searched."""
    single = query.picture is not None and query.region is None and not query.more_pictures
    return query.objects and single and encoded.maps_regions


def _picture(query: Query) -> QueryPicture:
    assert query.picture is not None
    return QueryPicture(query.picture)
