"""The changelog, from CHANGELOG.md at the top of the source."""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).parents[3] / "CHANGELOG.md"


def changelog() -> str:
    """The file, with links as they are from `docs/`."""
    return FILE.read_text(encoding="utf-8").replace("](docs/", "](")
