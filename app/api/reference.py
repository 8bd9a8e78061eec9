"""GET /docs: the OpenAPI document as one page that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#8882;padding:0 .2em}td,th{text-align:left;vertical-align:top;"
    "padding:.1rem 1rem .1rem 0}h2{margin:2rem 0 0}:root{color-scheme:light dark}"
)


def router(document: Callable[[], Mapping[str, Any]]) -> APIRouter:
    """The endpoint that shows an OpenAPI document."""
    routes = APIRouter(tags=["service"])

    @routes.get("/docs", include_in_schema=False)
    def reference() -> HTMLResponse:
        page = "".join(_page(document()))
        return HTMLResponse(page, headers={"Content-Security-Policy": _policy()})

    return routes


def _policy() -> str:
    return "default-src 'none'; style-src 'unsafe-inline'"


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
    yield "<meta name=viewport content='width=device-width'>"
    yield f"<style>{STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield f"<p>{escape(info['description'])}</p>"
    yield "<p>The description for programs: <a href=/openapi.json>openapi.json</a></p>"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from _operation(method, path, operation)
    yield "<h1>Objects</h1>"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield from _schema(name, schema)
    yield "</html>"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p><table>"
    for parameter in operation.get("parameters", ()):
        yield _row(parameter["name"], parameter.get("schema", {}), parameter)
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<tr><th>body<td><code>{escape(kind)}</code><td>{_type(body.get('schema', {}))}"
    for status, answer in operation["responses"].items():
        for kind, body in answer.get("content", {}).items():
            told = _type(body.get("schema", {}))
            yield f"<tr><th>{escape(status)}<td><code>{escape(kind)}</code><td>{told}"
    yield "</table>"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2 id='{escape(name)}'>{escape(name)}</h2>"
    yield f"<p>{escape(schema.get('description', ''))}</p><table>"
    for key, value in schema.get("properties", {}).items():
        yield _row(key, value, value)
    yield "</table>"


def _row(name: str, schema: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    told = escape(str(described.get("description", "")))
    default = f" (default {escape(repr(schema['default']))})" if schema.get("default") else ""
    return f"<tr><th><code>{escape(name)}</code><td>{_type(schema)}<td>{told}{default}"


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return escape(" or ".join(map(repr, schema["enum"])))
    return escape(str(schema.get("type", "any")))
