"""Reads JSON lines: one object a line, with limits on its length and depth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.errors import BadSource
from ingest.sources import MAX_FIELD_LENGTH

BOM = b"\xef\xbb\xbf"


def json_lines(source: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The objects with their line numbers, from 1; a text is the reason why a line is refused.

    Blank lines are left out. Raises BadSource for a file that cannot be read at all.
    """
    try:
        with source.open("rb") as file:
            number = 0
            while line := file.readline(MAX_FIELD_LENGTH + 1):
                number += 1
                if len(line) > MAX_FIELD_LENGTH:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_FIELD_LENGTH)
                    yield number, f"the line has more than {MAX_FIELD_LENGTH:,} bytes"
                elif line.removeprefix(BOM).strip():
                    yield number, _object(line.removeprefix(BOM))
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc


def _object(line: bytes) -> dict[str, Any] | str:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeError:
        return "not UTF-8 text; save the file as UTF-8"
    except (ValueError, RecursionError) as exc:
        return f"not JSON: {str(exc)[:100] or 'nested too deeply'}; the line may be cut off"
    return value if isinstance(value, dict) else 'not a JSON object, such as {"sku": …}'
