"""GET /v1/facets: values to filter by."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Query, Response

from app.api import answers
from app.api.answers import FacetAnswer
from app.api.requests import FacetParameters
from app.bootstrap import App
from app.search.facets import Facets
from app.search.filters import parse
from app.search.vector_cache import VectorCache
from app.types import Query as SearchRequest


def router(app: App) -> APIRouter:
    """The endpoint of facets."""
    routes = APIRouter(prefix="/v1", tags=["search"])

    @routes.get("/facets", response_model=FacetAnswer)
    def facets(asked: Annotated[FacetParameters, Query()]) -> Response:
        """Values of columns and attributes and how many products have them: of those that pass the
        filters, or of what a search by photo, product or words finds. Each value is counted as if
        its own column were not filtered."""
        document = answers.facet_answer(_counted(app, asked), uuid4().hex)
        return Response(answers.encode(document), media_type=answers.JSON)

    return routes


def _counted(app: App, asked: FacetParameters) -> Facets:
    filters = parse(asked.filter)
    if asked.photo_id is None and asked.sku is None and asked.text is None:
        return app.facets.of_filters(filters)
    cache = VectorCache()
    photo = None if asked.photo_id is None else app.photos.load(asked.photo_id, cache)
    query = SearchRequest(
        picture=photo, sku=asked.sku, words=asked.text, filters=filters, untrusted=True,
        min_similarity=asked.min_similarity, words_language=asked.text_language,
    )  # fmt: skip
    return app.facets.of_query(query, cache)
