"""Puts the HTTP API together: the endpoints, how errors are answered, and the middleware."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.telemetry import TelemetryConfig
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.api import (
    events,
    facets,
    photos,
    pictures,
    problems,
    products,
    reference,
    search,
    service,
)
from app.api.access import Access, required_scope
from app.api.answers import ProblemData
from app.api.events import EventBatch
from app.api.middleware import RequestLimits, RequestMiddleware
from app.api.photos import PhotoUrl
from app.api.problems import AddressUnknown, ApiError, InvalidRequest, MethodRefused
from app.api.product_rows import ProductFields, ProductRow
from app.api.requests import PhotoQuery
from app.api.search import Searches
from app.bootstrap import App
from app.errors import LookalikeError

DESCRIPTION = """\
Find products by picture. Errors are problem documents (RFC 9457) with a stable `type`. Keys are
sent as `Authorization: Bearer lk_…`.
"""

EXTRA_SCHEMAS: tuple[type[BaseModel], ...] = (
    ProblemData,
    EventBatch,
    PhotoQuery,
    PhotoUrl,
    ProductFields,
    ProductRow,
)
"""Models that the document refers to and no endpoint declares."""

NO_TELEMETRY: TelemetryConfig = {
    "tracing": False, "metrics": False, "logs": False, "operation_spans": False,
    "auto_configure": False,
}  # fmt: skip
"""The framework would report requests, with their bodies, to whatever OpenTelemetry is set up."""

_log = logging.getLogger("lookalike.api")


def create_api(app: App, *, open_locally: bool) -> RequestMiddleware:
    """The ASGI application over the services of an App.

    With `open_locally`, requests from this machine need no key until one is created; only for
    servers that listen on a loopback address.
    """
    limits = RequestLimits.from_settings(app.settings)
    access = Access(app.api_keys, open_locally=open_locally)
    return RequestMiddleware(endpoints(app), access, limits, app.api_metrics)


def endpoints(app: App) -> FastAPI:
    """The endpoints, without the middleware: no key is checked and no body limited."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # A thread for each request that is let in: which of them run, the admission decides.
        anyio.to_thread.current_default_thread_limiter().total_tokens = app.settings.api_requests
        yield

    api = FastAPI(
        title="Lookalike", version=version("lookalike"), description=DESCRIPTION,
        telemetry=NO_TELEMETRY, lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False, generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    searches = Searches(app)
    for router in (
        service.router(app),
        search.router(app, searches),
        photos.router(app, searches),
        facets.router(app),
        events.router(app),
        products.router(app),
        pictures.router(app),
        reference.router(lambda: api.openapi()),
    ):
        api.include_router(router)
    api.add_exception_handler(LookalikeError, _on_error)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(Exception, _on_bug)
    api.openapi = lambda: _openapi(api)  # type: ignore[method-assign]
    return api


def _openapi(api: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: with keys, and with the problems that any request may meet."""
    if api.openapi_schema is None:
        document = get_openapi(
            title=api.title, version=api.version, description=api.description, routes=api.routes
        )
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for model in EXTRA_SCHEMAS:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
        problem = {
            "description": "Refused",
            "content": {
                problems.CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemData"}}
            },
        }
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = problem
                if required_scope(method.upper(), path) is not None:
                    operation["security"] = [{"key": []}]
        api.openapi_schema = document
    return api.openapi_schema


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, LookalikeError)
    return _response(problems.problem(error), problems.headers_of(error))


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _response(problems.invalid_request(error.errors()), {})


async def _on_http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses: unknown addresses and methods, forms it cannot read."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    kinds: dict[int, type[ApiError]] = {404: AddressUnknown, 405: MethodRefused}
    if error.status_code in kinds:
        refused = kinds[error.status_code](headers=headers)
    elif error.status_code < 500:
        refused = InvalidRequest(f"The body cannot be read: {str(error.detail)[:200]}")
    else:
        return _response(problems.internal_problem(), headers)
    return _response(problems.problem(refused), problems.headers_of(refused))


def _methods(request: Request) -> list[str]:
    """The methods that this address answers, in any of its endpoints."""
    document = request.app.openapi()
    path = request.scope["path"]
    return sorted(
        method.upper()
        for template, methods in document["paths"].items()
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path)
        for method in methods
    ) or ["GET"]


async def _on_bug(request: Request, error: Exception) -> Response:
    """An error that nobody expected."""
    _log.error("a request failed: %s %s", request.method, request.url.path, exc_info=error)
    return _response(problems.internal_problem(), {})


def _response(document: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(
        problems.encoded(document), document["status"], headers, media_type=problems.CONTENT_TYPE
    )
