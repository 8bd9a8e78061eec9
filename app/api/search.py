"""Searches: POST /v1/search, /v1/search/photo and /v1/search/batch, GET /v1/products/…/similar."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Query, Request, Response

from app.api import answers, event_rows, forms, problems, requests
from app.api.answers import BatchAnswer, SearchAnswer
from app.api.cursors import Cursors
from app.api.forms import FormData
from app.api.requests import (
    BatchQuery,
    Options,
    PhotoQuery,
    SearchQuery,
    SimilarParameters,
    SkuInPath,
)
from app.api.search_threads import THREADS_PER_PLACE, SearchThreads
from app.bootstrap import App
from app.errors import LookalikeError, ModelNotMaintained, UnknownModel
from app.operations.api_keys import CURSORS, ApiKey
from app.operations.search_events import RequestRow
from app.search.filters import parse
from app.search.vector_cache import VectorCache
from app.types import Query as SearchRequest
from app.types import SearchResult

BATCH_THREADS = 4
"""Queries of all batches that this process answers at the same time."""

MAX_HASHES = 200_000
"""Pictures whose sha256 is kept in memory, about 150 bytes each."""

TOLD = ("model", "matches", "regions", "dropped", "confidence", "close")
"""Members of an answer that its ETag depends on."""

SEARCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SearchQuery"}}},
    }
}

PHOTO_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "query": {
                            "description": "options of the search, a JSON object as of PhotoQuery",
                        },
                    },
                }
            }
        },
    }
}


class PictureHashes:
    """The sha256 of pictures by id, from memory where they were asked for before: the picture of an
    id never changes. Thread-safe."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._known: OrderedDict[int, bytes] = OrderedDict()

    def of(self, result: SearchResult) -> dict[int, bytes]:
        """Those of all pictures in a result that are stored."""
        lists = (result.matches, *(region.matches for region in result.regions))
        ids = {match.picture_id for matches in lists for match in matches}
        with self._lock:
            found = {id_: self._known[id_] for id_ in ids if id_ in self._known}
        if missing := sorted(ids - found.keys()):
            read = self._app.catalog.picture_hashes(missing)
            with self._lock:
                self._known |= read
                while len(self._known) > MAX_HASHES:
                    self._known.popitem(last=False)
            found |= read
        return found


class Searches:
    """Answers searches through the service that the page uses. Thread-safe."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._hashes = PictureHashes(app)
        self._cursors = Cursors(lambda: app.api_keys.shared_secret(CURSORS))
        self._model_ids: dict[str, int] = {}
        self._batch = ThreadPoolExecutor(BATCH_THREADS, "batch")

    def search(self, asked: SearchQuery, key: ApiKey | None) -> dict[str, Any]:
        """The answer to a search with a key, if it needed one."""
        try:
            return self._search(asked, key)
        except ModelNotMaintained:  # perhaps it has another id since it was looked up
            if self._model_ids.pop(asked.model or "", None) is None:
                raise
            return self._search(asked, key)

    def _search(self, asked: SearchQuery, key: ApiKey | None) -> dict[str, Any]:
        cache = VectorCache()
        query = requests.search_query(asked, self._model_id(asked.model), self._app.photos, cache)
        return self._page(asked, requests.fingerprint(asked), query, cache, key)

    def by_photo(self, asked: PhotoQuery, photo: bytes, key: ApiKey | None) -> dict[str, Any]:
        """The answer to a search with a photo that is not stored."""
        cache = VectorCache()
        query = requests.photo_query(asked, photo, self._app.photos, cache)
        return self._page(asked, requests.fingerprint(asked, photo), query, cache, key)

    def batch(self, queries: Sequence[SearchQuery], key: ApiKey | None) -> list[dict[str, Any]]:
        """An answer or a problem for each query, in order."""
        return list(self._batch.map(partial(self._answer_or_problem, key=key), queries))

    def similar(self, sku: str, asked: SimilarParameters) -> SearchResult:
        """The products similar to one."""
        query = SearchRequest(
            sku=sku, k=asked.k, filters=parse(asked.filter), fold=asked.fold,
            min_similarity=asked.min_similarity,
        )  # fmt: skip
        return self._app.search.search(query)

    def record(self, search: RequestRow | None) -> None:
        """Record a search in the background, if there is something to record."""
        if search is not None:
            self._app.events.record(search)

    def document(self, result: SearchResult, query_id: str, cursor: str | None) -> dict[str, Any]:
        """A result as an answer."""
        return answers.search_answer(result, self._hashes.of(result), query_id, cursor)

    def regions(self, result: SearchResult) -> list[dict[str, Any]]:
        """The objects of a result's photo."""
        return answers.regions(result, self._hashes.of(result))

    def _page(
        self, asked: Options, fingerprint: bytes, query: SearchRequest, cache: VectorCache,
        key: ApiKey | None,
    ) -> dict[str, Any]:  # fmt: skip
        shown: tuple[str, ...] = ()
        if asked.cursor is not None:
            shown = self._cursors.open(asked.cursor, fingerprint)
        result = self._app.search.search(replace(query, shown=shown), cache)
        following = None
        if len(result.matches) == asked.k or result.gave_up:
            following = self._cursors.seal(fingerprint, (*shown, *result.shown))
        query_id = uuid4().hex
        if key is not None:
            self.record(event_rows.search_row(asked, result, query_id, len(shown), key))
        return self.document(result, query_id, following)

    def _answer_or_problem(self, asked: SearchQuery, key: ApiKey | None) -> dict[str, Any]:
        try:
            return self.search(asked, key)
        except LookalikeError as exc:
            return problems.problem(exc)

    def _model_id(self, name: str | None) -> int | None:
        """The id of a model by its name, from memory where it was asked for before."""
        if name is None:
            return None
        if name not in self._model_ids:
            self._model_ids |= {model.name: model.id for model in self._app.catalog.models()}
        if name not in self._model_ids:
            raise UnknownModel(
                f"No model {name!r} is kept up to date; these are: {', '.join(self._model_ids)}."
            )
        return self._model_ids[name]


def router(app: App, searches: Searches) -> APIRouter:
    """The endpoints of searches."""
    routes = APIRouter(prefix="/v1", tags=["search"])
    threads = SearchThreads(
        THREADS_PER_PLACE * app.settings.places, app.settings.search_wait_s, app.metrics.refused
    )

    @routes.post("/search", response_model=SearchAnswer, openapi_extra=SEARCH_BODY)
    async def search(request: Request) -> Response:
        """Find products by a stored photo, a product, words or a vector."""
        forms.content_type(request, forms.JSON)
        body = await request.body()
        return await threads.run(_search, searches, body, request.scope.get("api_key"))

    @routes.post("/search/photo", response_model=SearchAnswer, openapi_extra=PHOTO_FORM)
    async def search_photo(request: Request) -> Response:
        """Find products by a photo that is not stored."""
        forms.content_type(request, forms.FORM)
        form = await forms.read_form(request, files=("file",), texts=("query",))
        return await threads.run(_by_photo, searches, form, request.scope.get("api_key"))

    @routes.post("/search/batch", response_model=BatchAnswer)
    def search_batch(asked: BatchQuery, request: Request) -> Response:
        """Up to 100 searches; each is admitted by itself, and one that fails fails alone."""
        key = request.scope.get("api_key")
        return _json({"answers": searches.batch(asked.queries, key)})

    @routes.get("/products/{sku}/similar", response_model=SearchAnswer)
    async def similar(
        sku: SkuInPath, asked: Annotated[SimilarParameters, Query()], request: Request
    ) -> Response:
        """Products similar to one. The ETag changes with what is found and what is told of it."""
        return await threads.run(similar_answer, sku, asked, request)

    def similar_answer(sku: str, asked: SimilarParameters, request: Request) -> Response:
        result, query_id = searches.similar(sku, asked), uuid4().hex
        document = searches.document(result, query_id, None)
        headers = {
            "ETag": _etag(document),
            "Cache-Control": f"private, max-age={app.settings.api_cache_s}",
            "Vary": "Authorization",
        }
        if _matches(request.headers.getlist("if-none-match"), headers["ETag"]):
            return Response(status_code=304, headers=headers)  # and nobody learns its query_id
        if (key := request.scope.get("api_key")) is not None:
            searches.record(event_rows.similar_row(sku, asked, result, query_id, key))
        return _json(document, headers)

    return routes


def _search(searches: Searches, body: bytes, key: ApiKey | None) -> Response:
    # Not by FastAPI, which makes Python objects of a vector's numbers before they are checked.
    return _json(searches.search(forms.parse_json(SearchQuery, body), key))


def _by_photo(searches: Searches, form: FormData, key: ApiKey | None) -> Response:
    asked = forms.parse_json(PhotoQuery, form.texts.get("query", "{}"), at="query")
    return _json(searches.by_photo(asked, forms.one_file(form, "file"), key))


def _json(document: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(answers.encode(document), media_type=answers.JSON, headers=headers)


def _etag(document: dict[str, Any]) -> str:
    """A weak ETag of an answer: of what it found and says of it, not of how it came about."""
    told = {name: document[name] for name in TOLD} | {"shortfall": document["plan"]["shortfall"]}
    return f'W/"{hashlib.sha256(answers.encode(told)).hexdigest()[:32]}"'


def _matches(headers: Iterable[str], etag: str) -> bool:
    """Whether a header If-None-Match names this ETag, weak or strong."""
    named = [each.strip() for header in headers for each in header.split(",")]
    return "*" in named or etag.removeprefix("W/") in [each.removeprefix("W/") for each in named]
