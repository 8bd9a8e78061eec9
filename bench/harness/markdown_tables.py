"""Renders the JSON results of the last runs as Markdown tables for `docs/benchmarks.md`.

python -m bench.harness.markdown_tables
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness.side_by_side import RESULTS_FOLDER, markdown_table


def render_report(report: dict[str, Any]) -> Iterator[str]:
    """The lines of one report: heading, command, table, goals and notes."""
    yield f"## {report['title']}\n"
    yield f"`{report['command']}`, {report['at'][:10]}\n"
    yield from markdown_table(report["rows"])
    for goal in report["goals"]:
        met = "reached" if goal["met"] else "**missed**"
        condition = f"{goal['name']} {goal['sign']} {goal['bound']:g}"
        yield f"\nGoal: {condition}: {goal['value']:.3g}, {met}."
    for note in report["notes"]:
        yield f"\n{note}"
    yield ""


def main() -> None:
    files: list[Path] = sorted(RESULTS_FOLDER.glob("*.json"))
    for file in files:
        print("\n".join(render_report(json.loads(file.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
