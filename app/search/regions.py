"""Finds the objects in a photo by searching its windows.

The windows' vectors come from one feature map, the index nominates pictures for all of them in one
call, and PostgreSQL compares them in one statement. The best windows that do not overlap are then
encoded exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from app.types import Match, Model, Query, Region, Vector
from app.vectors import round_to_float16, unit_rows

NOMINEES = 4
"""Pictures that the index nominates for each window."""

MAX_OBJECTS = 2
"""Objects of a photo that are searched."""

EXACT_OBJECTS = 1
"""Objects that are encoded as pictures of their own too, the best ones. A search then costs at most
five encodes: the whole, the map (2.25, or 3 for a photo of 4 to 3) and one object."""

NEIGHBOURS = 4
"""Windows that an object is searched by: the chosen one and the most similar ones around it."""

NEIGHBOUR_OVERLAP = 0.3
"""Intersection over union with the chosen window from which on a window is a neighbour."""

DEFAULT_SURE = 0.7
"""Cosine similarity of a whole picture to a product's from which on its regions are not searched,
for models without a fitted one."""


def default_sure_similarity(model: Model) -> float:
    """DEFAULT_SURE, for every model."""
    return DEFAULT_SURE


@dataclass(frozen=True, slots=True)
class ChosenWindow:
    """A window that shows an object: its index, the best cosine similarity (-1 to 1) that it has to
    a picture of the catalogue, and the indices of the windows to search by, its own first."""

    index: int
    similarity: float
    neighbours: tuple[int, ...]


def choose_windows(
    regions: Sequence[Region], similarities: NDArray[np.float64]
) -> list[ChosenWindow]:
    """The windows with the best similarities, shape (n,), that do not overlap; best first."""
    ranked = np.argsort(-similarities, kind="stable")
    chosen = []
    for index in suppress(regions, similarities.tolist(), MAX_OBJECTS):
        near = overlaps(regions[index], regions) > NEIGHBOUR_OVERLAP
        neighbours = tuple(int(each) for each in ranked if near[each])[:NEIGHBOURS]
        chosen.append(ChosenWindow(index, float(similarities[index]), neighbours))
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
    files: IndexFiles,
    settings: Settings,
) -> list[ChosenWindow]:
    """The windows that are most similar to a picture of the catalogue and do not overlap.

    Empty where more embeddings changed since the build than the settings allow, and where there is
    neither a build nor a small catalogue.
    """
    vectors = round_to_float16(windows.vectors)
    request = RetrievalRequest(connection, model, vectors[0], 1)
    opened = open_build(request, files)
    build, max_fresh = None, settings.exact_rows
    nominated = np.empty((len(vectors), 0), np.int64)
    if isinstance(opened, OpenBuild):
        build, max_fresh = opened.build, settings.max_delta_rows
        count = min(NOMINEES, opened.index.rows)
        _, nominated = opened.index.search(unit_rows(vectors), count)
    similarities = window_matches.best_similarities(
        connection, model, build, vectors, nominated, max_fresh=max_fresh
    )
    if similarities is None or not len(similarities) or similarities.max() <= -1:
        return []
    return choose_windows(windows.regions, similarities)


class ObjectFinder:
    """Finds the objects in the pictures of queries. Thread-safe.

    `sure_similarity` gives the cosine similarity from which on a whole picture's best match leaves
    no doubt under a model, so that its regions are not searched.
    """

    def __init__(
        self,
        encoder: QueryEncoder,
        files: IndexFiles,
        settings: Settings,
        sure_similarity: Callable[[Model], float],
    ) -> None:
        self._encoder = encoder
        self._files = files
        self._settings = settings
        self.sure_similarity = sure_similarity

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
            if best >= self.sure_similarity(model):
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
            found = self._find(connection, model, query, encoded.pictures[0])
            cache.put_objects(picture, model.fingerprint, found)
        return found.objects

    def _find(
        self, connection: Connection, model: Model, query: Query, whole: Vector
    ) -> PhotoObjects:
        """The objects of the query's picture, whose vector as a whole is `whole`, shape (dim,)."""
        request = RetrievalRequest(connection, model, round_query(whole, model), 1)
        hits = planner.find(request, self._files, self._settings).candidates.hits
        similarity = hits[0].similarity if hits else -1.0
        if not hits or similarity >= self.sure_similarity(model):
            return PhotoObjects(similarity)
        windows = self._encoder.map_windows(query, model.fingerprint)
        if windows is None:
            return PhotoObjects(similarity)
        chosen = best_windows(connection, model, windows, self._files, self._settings)
        return PhotoObjects(similarity, self._exact(query, windows, chosen))

    def _exact(
        self, query: Query, windows: Windows, chosen: Sequence[ChosenWindow]
    ) -> tuple[PhotoObject, ...]:
        """The objects in the chosen windows, the best encoded as pictures of their own."""
        boxes = [windows.regions[each.index] for each in chosen]
        exact = boxes[:EXACT_OBJECTS]
        crops = self._encoder.encode_regions(query, exact) if exact else ()
        return tuple(
            PhotoObject(box, object_vectors(windows, each, crop), each.similarity)
            for each, box, crop in zip_longest(chosen, boxes, crops)
        )


def whole_similarity(
    query: Query, matches: Sequence[Match], model: Model, cache: VectorCache
) -> float | None:
    """The best cosine similarity of the query's whole picture; None for a part of a picture, and
    without matches."""
    if query.region is not None or not matches:
        return None
    found = cache.get_objects(_picture(query), model.fingerprint)
    return matches[0].similarity if found is None else found.whole


def _applies(query: Query, encoded: EncodedQuery) -> bool:
    """Whether the regions of the query's picture may be searched."""
    single = query.picture is not None and query.region is None and not query.more_pictures
    return query.objects and single and encoded.maps_regions


def _picture(query: Query) -> QueryPicture:
    assert query.picture is not None
    return QueryPicture(query.picture)
