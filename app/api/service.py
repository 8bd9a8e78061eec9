"""The service itself: GET /healthz, /v1/status and /metrics."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from fastapi import APIRouter, Response

from app.api import answers
from app.api.answers import HealthAnswer
from app.bootstrap import App
from app.errors import DatabaseUnavailable
from app.operations import health
from app.operations.metrics import exposition

TEXT: dict[str, Any] = {"content": {"text/plain": {}}}


def router(app: App) -> APIRouter:
    """The endpoints about the service."""
    routes = APIRouter(tags=["service"])
    liveness = health.Liveness(app.engine)

    @routes.get("/healthz", response_model=HealthAnswer)
    def healthz() -> dict[str, str]:
        """Whether the process answers and reaches its database; asked once a second at most."""
        if not liveness.status().healthy:
            raise DatabaseUnavailable()
        return {"status": "ok"}

    @routes.get("/v1/status", response_model=dict[str, Any])
    def status() -> Response:
        """The health checks, as of `lookalike status`."""
        result = health.status(app.engine, app.files, app.settings)
        document = json.dumps(result.as_dict(), ensure_ascii=False, default=_plain)
        return Response(document, media_type=answers.JSON)

    @routes.get("/metrics", response_class=Response, responses={200: TEXT})
    def metrics() -> Response:
        """Metrics for Prometheus."""
        content_type, body = exposition(app.metrics.registry)
        return Response(body, media_type=content_type)

    return routes


def _plain(value: object) -> object:
    """A value of a health check in JSON."""
    return float(value) if isinstance(value, Decimal) else str(value)
