"""Addresses of the HTTP API, from docs/openapi.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reference.markdown import code, table

DOCUMENT = Path(__file__).parents[2] / "openapi.json"


def addresses() -> str:
    """A section for each address and method, with parameters, body and answers."""
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    return "\n\n".join(
        _section(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"## {method.upper()} {path}".replace("{", "\\{"), operation.get("description", "")]
    rows = [
        (code(each["name"]), each["in"], _shape(each["schema"]), each.get("description", ""))
        for each in operation.get("parameters", [])
    ]
    if rows:
        parts.append(table(("parameter", "in", "type", "meaning"), rows))
    if body := operation.get("requestBody"):
        parts.append("Body: " + _contents(body))
    answers = [
        (status, _contents(each), each["description"])
        for status, each in operation["responses"].items()
    ]
    parts.append(table(("status", "body", "meaning"), answers))
    return "\n\n".join(parts)


def _contents(described: dict[str, Any]) -> str:
    return ", ".join(
        f"{code(kind)} {_shape(each.get('schema', {}))}".strip()
        for kind, each in described.get("content", {}).items()
    )


def _shape(schema: dict[str, Any]) -> str:
    """The type of a schema in a few words; a named one by its name."""
    if "$ref" in schema:
        return code(schema["$ref"].rpartition("/")[2])
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(_shape, several)))
    if schema.get("type") == "array":
        return f"list of {_shape(schema.get('items', {}))}".strip()
    if values := schema.get("enum"):
        return " or ".join(map(code, values))
    return str(schema.get("type", ""))
