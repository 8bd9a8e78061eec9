"""What schemathesis has to be told about the API."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_lines(_: Any, value: Any) -> bytes:
    """A body of lines of JSON, which the document describes as text."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
