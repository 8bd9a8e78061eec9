"""Finds the objects in a photo by searching its windows.

The windows' vectors come from one feature map, the index nominates pictures for all of them in one
call, and PostgreSQL compares them in one statement. The best windows that do not overlap are then
encoded exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sqlalchemy import Connection

from app.config import Settings
from app.db.queries import window_matches
from app.index.file_store import IndexFiles
from app.search import planner
from app.search.query_encoder import EncodedQuery, QueryEncoder, round_query, unit_direction
from app.search.retrieval import OpenBuild, RetrievalRequest, open_build
from app.search.vector_cache import PhotoObject, PhotoObjects, QueryPicture, VectorCache
from app.search.windows import Windows, suppress
from app.types import Match, Model, Query, Vector
from app.vectors import round_to_float16, unit_rows

NOMINEES = 4
"""Pictures that the index nominates for each window."""

MAX_OBJECTS = 2
"""Objects of a photo that are encoded exactly and searched."""

CLOSE_SECOND = 0.9
"""A further object counts if its similarity is at least this share of the best one's."""


DEFAULT_SURE = 0.8
"""Cosine similarity of a whole picture to a product's from which on its regions are not searched,
for models without a fitted one."""


def default_sure_similarity(model: Model) -> float:
    """DEFAULT_SURE, for every model."""
    return DEFAULT_SURE


def best_windows(
    connection: Connection,
    model: Model,
    windows: Windows,
    files: IndexFiles,
    settings: Settings,
) -> list[tuple[int, float]]:
    """The windows that are most similar to a picture of the catalogue and do not overlap: at most
    MAX_OBJECTS pairs of index and cosine similarity, best first.

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
    chosen = suppress(windows.regions, similarities.tolist(), MAX_OBJECTS)
    least = CLOSE_SECOND * float(similarities.max())
    return [(index, float(similarities[index])) for index in chosen if similarities[index] >= least]


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
        self, query: Query, windows: Windows, chosen: Sequence[tuple[int, float]]
    ) -> tuple[PhotoObject, ...]:
        """The chosen windows with vectors to search by: the mean of the window's vector, which
        sees the surroundings, and of the encoded crop, which does not."""
        boxes = [windows.regions[index] for index, _ in chosen]
        crops = self._encoder.encode_regions(query, boxes) if boxes else ()
        return tuple(
            PhotoObject(box, unit_direction(windows.vectors[index] + crop), similarity)
            for (index, similarity), box, crop in zip(chosen, boxes, crops, strict=True)
        )


def _applies(query: Query, encoded: EncodedQuery) -> bool:
    """Whether the regions of the query's picture may be searched."""
    single = query.picture is not None and query.region is None and not query.more_pictures
    return query.objects and single and encoded.maps_regions


def _picture(query: Query) -> QueryPicture:
    assert query.picture is not None
    return QueryPicture(query.picture)
