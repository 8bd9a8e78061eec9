"""Tables in Markdown from the JSON of the last runs, for `docs/benchmarks.md`.

python -m bench.harness.markdown_tables
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness.side_by_side import FOLDER, table


def page(found: dict[str, Any]) -> Iterator[str]:
    yield f"## {found['title']}\n"
    yield f"`{found['command']}`, {found['at'][:10]}\n"
    yield from table(found["rows"])
    for goal in found["goals"]:
        met = "reached" if goal["met"] else "**missed**"
        aim = f"{goal['name']} {goal['sign']} {goal['bound']:g}"
        yield f"\nGoal: {aim}: {goal['value']:.3g}, {met}."
    for note in found["notes"]:
        yield f"\n{note}"
    yield ""


def main() -> None:
    files: list[Path] = sorted(FOLDER.glob("*.json"))
    for file in files:
        print("\n".join(page(json.loads(file.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
