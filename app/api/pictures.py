"""GET /v1/pictures/{sha256}/thumbnail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.bootstrap import App

FOREVER = "public, max-age=31536000, immutable"

Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="in hexadecimal")]


def router(app: App) -> APIRouter:
    """The endpoint of thumbnails."""
    routes = APIRouter(prefix="/v1/pictures", tags=["pictures"])

    @routes.get(
        "/{sha256}/thumbnail", response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}},
    )  # fmt: skip
    def thumbnail(sha256: Sha256) -> Response:
        """The thumbnail of a picture by the sha256 of its file: it never changes."""
        data = app.catalog.thumbnail(bytes.fromhex(sha256))
        headers = {"Cache-Control": FOREVER, "Cross-Origin-Resource-Policy": "cross-origin"}
        return Response(data, media_type="image/jpeg", headers=headers)

    return routes
