"""What analysts may use, from the COMMENTs of the files in `sql/`."""

from __future__ import annotations

import re
from pathlib import Path

from reference.markdown import code, table

FOLDER = Path(__file__).parents[3] / "sql"
COMMENT = re.compile(
    r"^COMMENT ON (?P<kind>SCHEMA|TYPE|VIEW|FUNCTION|TABLE|COLUMN) (?P<name>.+?) IS\s+"
    r"(?P<text>(?:'(?:[^']|'')*'\s*)+);",
    re.MULTILINE | re.DOTALL,
)
LITERAL = re.compile(r"'((?:[^']|'')*)'")


def objects() -> str:
    """A section for each object of the schema `analytics`, with its columns."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.sql"))]
    found = [
        match.group("kind", "name", "text") for each in texts for match in COMMENT.finditer(each)
    ]
    columns: dict[str, list[tuple[str, str]]] = {}
    for kind, name, text in found:
        if kind == "COLUMN":
            owner, _, column = name.rpartition(".")
            columns.setdefault(owner, []).append((code(column), _text(text)))
    parts = []
    for kind, name, text in sorted(found, key=lambda each: each[1]):
        if kind == "COLUMN" or "._" in name:  # what begins with an underscore is internal
            continue
        words = " ".join(name.split())
        parts.append(
            f"## {words.partition('(')[0]}\n\n{kind.capitalize()} {code(words)}: {_text(text)}"
        )
        if name in columns:
            parts.append(table(("column", "meaning"), columns[name]))
    return "\n\n".join(parts)


def _text(literals: str) -> str:
    joined = "".join(LITERAL.findall(literals)).replace("''", "'")
    return joined.replace("<", "\\<").replace("*", "\\*")
