"""Which tests of a parallel run share a process, and which start first.

Replaces the groups of pytest-xdist 3.8, which have no effect with pytest 9.2: both processes made
the expensive fixtures of a file.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from support.paths import REPO

LONGEST_FIRST = (
    "tests/ui/test_search_browser.py",
    "tests/ui/test_search_browser_filters.py",
    "tests/ui/test_search_browser_asking.py",
    "tests/ui/test_search_state_machine.py",
    "tests/ui/test_pages_browser.py",
    "tests/encoders/test_stock_processor.py",
    "tests/encoders/test_model_layouts.py",
    "tests/encoders/test_text_encoding.py",
    "tests/encoders/test_compiled_model.py",
    "tests/encoders/test_compiled_cache.py",
    "tests/encoders/test_int8.py",
    "tests/encoders/test_encoders.py",
    "tests/encoders/test_fingerprints.py",
    "tests/encoders/test_loading.py",
    "tests/cli/test_cli.py",
    "tests/cli/test_cli_ingest.py",
    "tests/cli/test_cli_errors.py",
    "tests/architecture/test_docs.py",
    "tests/evaluation/test_real_photos.py",
    "tests/encoders/test_stored_encoder.py",
    "tests/architecture/test_deployment_runs.py",
    "tests/architecture/test_package.py",
    "tests/api/test_fuzz.py",
    "tests/cluster/test_cluster.py",
    "tests/index/test_hot_swap.py",
    "tests/freshness/test_horizon_machine.py",
)
"""Files that would keep one process busy at the end of a run while the others are idle.

The tests of the page need the embedded encoder at once, and compile its graphs for all processes.
Files of models that need it too come after others of their group, when the graphs are there.
"""


class GroupScheduling(LoadScopeScheduling):
    """One process runs all tests of a group: an `xdist_group`, or a file with module fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.split("::")[0]) or nodeid


@cache
def group(file: str) -> str | None:
    """The group of all tests of a file (a path below the checkout); None if each is by itself."""
    text = (REPO / file).read_text(encoding="utf-8")
    if named := re.search(r'xdist_group\("(\w+)"\)', text):
        return named[1]
    return file if 'scope="module"' in text else None


def sort_longest_first(items: list[pytest.Item]) -> None:
    """Move the tests of LONGEST_FIRST to the front; all others are in the order of their files."""
    rank = {file: number for number, file in enumerate(LONGEST_FIRST)}

    def place(item: pytest.Item) -> tuple[int, list[str]]:
        file = item.nodeid.split("::")[0]
        return rank.get(file, len(rank)), file.split("/")

    items.sort(key=place)


def own_share_first(tests: Path, number: int, count: int) -> list[str]:
    """All entries of the folder `tests` that hold tests, from the share of a process onwards.

    Process `number` of `count` begins at another file than the others: in a new checkout, whoever
    imports a file of tests first compiles it for all. If all began at the same file, each would
    compile all files.
    """
    names: list[str] = []
    start, files = 0, sorted(tests.rglob("test_*.py"), key=lambda path: path.parts)
    for position, file in enumerate(files):
        name = str(tests / file.relative_to(tests).parts[0])
        if name not in names:
            names.append(name)
        if position * count <= len(files) * number:
            start = len(names) - 1
    return names[start:] + names[:start]
