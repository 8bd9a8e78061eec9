"""Photos to search with more than once: POST /v1/photos, GET /v1/photos/…/preview."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from app.api import answers, forms
from app.api.answers import PhotoAnswer
from app.api.requests import Strict
from app.api.search import Searches
from app.bootstrap import App
from app.operations.api_keys import ApiKey

PHOTO_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/PhotoUrl"}},
        },
    }
}


class PhotoUrl(Strict):
    """A photo on the web."""

    url: Annotated[str, Field(min_length=1, max_length=2000)] = Field(
        description="http or https address of the picture itself"
    )


def router(app: App, searches: Searches) -> APIRouter:
    """The endpoints of photos."""
    routes = APIRouter(prefix="/v1", tags=["search"])

    @routes.post("/photos", status_code=201, response_model=PhotoAnswer, openapi_extra=PHOTO_BODY)
    async def add_photo(request: Request) -> Response:
        """Store the vectors and a preview of a photo for an hour, to search with it repeatedly."""
        key = request.scope.get("api_key")
        if forms.content_type(request, forms.FORM, forms.JSON) == forms.JSON:
            named = forms.parse_json(PhotoUrl, await request.body())
            return await run_in_threadpool(lambda: add(app.web.read(named.url), key))
        form = await forms.read_form(request, files=("file",), texts=())
        return await run_in_threadpool(add, forms.one_file(form, "file"), key)

    @routes.get(
        "/photos/{photo_id}/preview", response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}},
    )  # fmt: skip
    def preview(photo_id: str) -> Response:
        """The preview of a stored photo."""
        headers = {"Cache-Control": "private, max-age=3600, immutable"}
        return Response(app.photos.preview(photo_id), media_type="image/jpeg", headers=headers)

    def add(photo: bytes, key: ApiKey | None) -> Response:
        stored = app.photos.add(photo)
        if key is not None and key.records == "queries" and app.events.enabled:
            app.events.keep_photo(stored.id, stored.preview, app.settings.max_photos)
        plan = stored.result.plan
        document: dict[str, Any] = {
            "photo_id": stored.id,
            "expires": stored.expires,
            "model": plan.model,
            "regions": searches.regions(stored.result),
            "query_id": uuid4().hex,
            "path": plan.path,
            "reason": plan.reason,
        }
        return Response(answers.encode(document), 201, media_type=answers.JSON)

    return routes
