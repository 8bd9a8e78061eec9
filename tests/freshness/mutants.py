"""Mutation tests: introduces known mistakes into a copy of the code and checks that tests fail.

    make mutants
    PYTHONPATH=tests python tests/freshness/mutants.py WORD ...   # only names with a word

Each mutant replaces a few words in a copy of the checkout in a temporary folder, and runs its
checks there until one fails. The unchanged code runs first and must pass. Exits with 1 if a mutant
survives all of its checks. `tests/architecture/test_mutants.py` verifies that every mutant still
applies.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from freshness.mutant_list import MUTANTS, UNCHANGED, Mutant

REPO = Path(__file__).resolve().parents[2]
COPIED = ("app", "ingest", "alembic", "sql", "tests", "pyproject.toml")
"""What a mutated copy consists of."""

PYTEST = ("-m", "pytest", "-qx", "-p", "no:cacheprovider")
CHECKS = {
    "soak": ("tests/freshness/soak.py", "--searches", "1500"),
    "machine": (*PYTEST, "tests/freshness/test_horizon_machine.py"),
    "cases": (
        *PYTEST,
        "tests/freshness/test_horizon_cases.py",
        "tests/freshness/test_horizon_replication.py",
        "tests/search/test_service.py",
        "tests/search/test_index_files.py",
    ),
    "candidates": (*PYTEST, "tests/search/test_candidates.py"),
    "dedup": (*PYTEST, "tests/search/test_dedup.py"),
    "plans": (*PYTEST, "tests/db/test_query_plans.py"),
    "filters": (
        *PYTEST,
        "tests/search/test_filter_cache.py",
        "tests/search/test_filter_cache_changes.py",
        "tests/search/test_filter_vectors.py",
        "tests/search/test_planner_filtered.py",
    ),
    "paths": (
        *PYTEST,
        "tests/search/test_fast_path.py",
        "tests/search/test_fast_path_fetches.py",
        "tests/search/test_service.py",
    ),
    "pages": (
        *PYTEST,
        "tests/search/test_paging.py",
        "tests/search/test_mixed_queries.py",
        "tests/search/test_refill.py",
    ),
    "index": (*PYTEST, "tests/index/test_builder.py", "tests/index/test_embedding_reader.py"),
    "compressed": (
        *PYTEST,
        "tests/index/test_compressed.py",
        "tests/index/test_compressed_build.py",
    ),
    "worker": (
        *PYTEST,
        "tests/operations/test_worker.py",
        "tests/operations/test_worker_failures.py",
        "tests/ui/test_page_index.py",
    ),
    "catalog": (*PYTEST, "tests/catalog/test_catalog.py"),
    "undo": (*PYTEST, "tests/catalog/test_undo.py"),
    "partial sources": (*PYTEST, "tests/ingest/test_partial_sources.py"),
    "models": (*PYTEST, "tests/models/test_lifecycle.py"),
    "files": (*PYTEST, "tests/index/test_files.py", "tests/operations/test_faults.py"),
    "locks": (*PYTEST, "tests/db/test_locks.py"),
    "drills": (*PYTEST, "tests/freshness/test_drills.py"),
}
"""Python arguments of each check, run in the folder of the copy."""

BROKEN = (
    "SyntaxError",
    "ImportError",
    "ModuleNotFoundError",
    "ProgrammingError",
    "has no attribute",
    "FailedHealthCheck",
)
"""Errors that show a broken mutant, test or machine, and not that a test notices the mistake."""

ERROR_LINES = ("E  ", "different: ", "a search failed")
"""Beginnings of the output lines that tell why a check failed."""


def mutated(mutant: Mutant, read: Callable[[str], str]) -> dict[str, str]:
    """The changed files of a mutant, by path; `read` returns the present text of a file.

    Raises ValueError unless each text to replace occurs exactly once.
    """
    files: dict[str, str] = {}
    for path, old, new in mutant.changes:
        text = files.get(path) or read(path)
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name!r}: {path} has {text.count(old)} times {old!r}")
        files[path] = text.replace(old, new)
    return files


def copy_checkout(mutant: Mutant, folder: Path) -> None:
    """Copy the code into `folder`, with the changes of the mutant."""
    for name in COPIED:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for path, text in mutated(mutant, lambda path: (REPO / path).read_text("utf-8")).items():
        (folder / path).write_text(text, encoding="utf-8")


def run_check(folder: Path, check: str) -> str | None:
    """The first error line of a check in a copy; None if it passes."""
    paths = os.pathsep.join((str(folder), str(folder / "tests")))
    done = subprocess.run(
        [sys.executable, *CHECKS[check]],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "HORIZON_ONCE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    output = done.stdout + done.stderr
    for broken in BROKEN:
        assert broken not in output, output
    assert "no tests ran" not in output and "file or directory not found" not in output, output
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(ERROR_LINES)]
    return (errors or lines[-1:] or ["it failed without output"])[0]


def is_caught(mutant: Mutant, checks: Sequence[str], go_on: bool) -> bool:
    """Run checks on a copy until one fails (all of them with `go_on`); whether any failed."""
    caught = False
    with tempfile.TemporaryDirectory(prefix="lookalike-mutant-") as name:
        folder = Path(name)
        copy_checkout(mutant, folder)
        for check in checks:
            began = time.monotonic()
            error = run_check(folder, check)
            verdict = f"caught: {error[:140]}" if error else "passed"
            print(f"  {check} ({time.monotonic() - began:.0f} s) {verdict}", flush=True)
            caught |= error is not None
            if caught and not go_on:
                break
    return caught


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("words", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--by", nargs="*", choices=list(CHECKS), help="only these checks")
    parser.add_argument("--all", action="store_true", help="run all checks of a caught mutant too")
    options = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not options.words or any(word in mutant.name for word in options.words)
    ]
    used = {check: None for mutant in chosen for check in mutant.checks}
    failures = []
    for mutant in (Mutant(UNCHANGED.name, (), tuple(used)), *chosen):
        checks = [check for check in mutant.checks if not options.by or check in options.by]
        print(f"{mutant.name}:", flush=True)
        if checks and is_caught(mutant, checks, options.all) == (mutant.name == UNCHANGED.name):
            failures.append(mutant.name)
    print(f"wrong: {'; '.join(failures)}" if failures else "every mutant was caught")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
