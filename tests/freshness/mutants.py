"""Mutation tests: introduces known mistakes into a copy of the code and checks that tests fail.

    make mutants
    python tests/freshness/mutants.py WORD ...   # only mutants whose name contains a word

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
from dataclasses import dataclass
from pathlib import Path

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
        "tests/search/test_planner_filtered.py",
    ),
    "paths": (*PYTEST, "tests/search/test_fast_path.py", "tests/search/test_service.py"),
    "pages": (*PYTEST, "tests/search/test_paging.py", "tests/search/test_refill.py"),
    "index": (*PYTEST, "tests/index/test_builder.py", "tests/index/test_embedding_reader.py"),
    "compressed": (*PYTEST, "tests/index/test_compressed.py"),
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

HORIZON = ("soak", "machine", "cases")
ERROR_LINES = ("E  ", "different: ", "a search failed")
"""Beginnings of the output lines that tell why a check failed."""

CATALOGUE = "alembic/versions/0001_catalogue.py"
DELTA = "app/db/queries/index_delta.py"
NEAREST = "app/db/queries/nearest.py"
SINGLE = "app/db/queries/single_statement.py"
LOCKS = "app/db/locks.py"
BUILDER = "app/index/builder.py"
READER = "app/index/embedding_reader.py"
FAISS_IO = "app/index/faiss_io.py"
FILE_STORE = "app/index/file_store.py"
PLANNER = "app/search/planner.py"
RETRIEVAL = "app/search/retrieval.py"
DEDUP = "app/search/dedup.py"
BATCH = "app/catalog/batch_write.py"
ENTRIES = "app/catalog/entries.py"
UNDO = "app/catalog/undo.py"
LIFECYCLE = "app/models/lifecycle.py"
PICTURES = "app/db/queries/pictures.py"

HELD = "pg_visible_in_snapshot(e.changed_in, CAST(%(snapshot)s AS pg_snapshot))"
SINCE = "e.changed_in >= pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))"
IN_PROGRESS = "e.changed_in = ANY(CAST(%(in_progress)s AS xid8[]))"
STARTED = (
    "(SELECT started_at FROM index_build"
    " WHERE snapshot::text = CAST(%(snapshot)s AS text) ORDER BY id DESC LIMIT 1)"
)
TRIGGER = """CREATE TRIGGER embedding_stamp BEFORE INSERT OR UPDATE ON embedding
    FOR EACH ROW EXECUTE FUNCTION stamp_embedding();
"""
ALWAYS = "ALTER TABLE embedding ENABLE ALWAYS TRIGGER embedding_stamp;"
STAMP = "NEW.changed_in := pg_current_xact_id();"
COLUMN = "changed_in xid8 NOT NULL,"
USABLE = "usable = index_builds.usable(request.connection, request.model.id)"


@dataclass(frozen=True)
class Mutant:
    """A mistake: its name, the replacements (file, old text, new text), and the checks to run."""

    name: str
    changes: tuple[tuple[str, str, str], ...]
    checks: tuple[str, ...] = HORIZON


NO_STAMP_CHECK = (READER, "        _check_stamp(connection)\n", "")
ORDINARY_TRIGGER = (CATALOGUE, ALWAYS, "")

UNCHANGED = Mutant("unchanged code", ())
MUTANTS = (
    Mutant(
        "changed_in is replaced by updated_at",
        (
            (CATALOGUE, COLUMN, COLUMN + "\n    updated_at timestamptz,"),
            (CATALOGUE, STAMP, f"NEW.updated_at := now();\n    {STAMP}"),
            (DELTA, SINCE, f"e.updated_at >= {STARTED}"),
            (DELTA, IN_PROGRESS, "false"),
            (DELTA, HELD, f"e.updated_at < {STARTED}"),
        ),
    ),
    Mutant(
        "the row condition is changed_in < xmax",
        (
            (DELTA, IN_PROGRESS, "false"),
            (DELTA, HELD, "e.changed_in < pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))"),
        ),
    ),
    Mutant(
        "a search uses a build that its snapshot does not see",
        (
            (
                RETRIEVAL,
                USABLE,
                "with request.connection.engine.connect() as other:\n"
                "        usable = index_builds.usable(other, request.model.id)",
            ),
        ),
    ),
    Mutant(
        "the single statement trusts the build it knows",
        ((SINGLE, "(first.active, first.newest) !=", "False and (first.active, first.newest) !="),),
    ),
    Mutant(
        "the single statement knows a build by its id alone",
        (
            (
                SINGLE,
                "(first.active, first.newest) !=",
                "(first.active, first.newest.split()[0]) !=",
            ),
            (SINGLE, "index_builds.identity(request.build)", "str(request.build.id)"),
        ),
        ("drills",),
    ),
    # Keeps the trigger and gives it the effect of a column default, so that nothing else changes.
    Mutant(
        "the stamp acts like a column default",
        ((CATALOGUE, STAMP, "NEW.changed_in := coalesce(NEW.changed_in, pg_current_xact_id());"),),
    ),
    Mutant(
        "the stamp is a column default, and builds check the trigger",
        (
            (CATALOGUE, TRIGGER, ""),
            ORDINARY_TRIGGER,
            (CATALOGUE, COLUMN, "changed_in xid8 NOT NULL DEFAULT pg_current_xact_id(),"),
        ),
    ),
    Mutant("the stamp trigger is not ENABLE ALWAYS", (ORDINARY_TRIGGER, NO_STAMP_CHECK)),
    Mutant("changed rows stay among the nominees", ((DELTA, f"\n        AND {HELD}", ""),)),
    Mutant(
        "the distance up to which the index was searched is ignored",
        ((DELTA, "ends = [seen_to - TOLERANCE]", "ends = []"),),
    ),
    Mutant(
        "similarities of the index are taken as exact",
        ((NEAREST, "TOLERANCE = 2e-4", "TOLERANCE = 0.0"),),
        ("cases",),
    ),
    Mutant(
        "the end of what a compressed index knows is ignored",
        ((DELTA, "ends = [rows[0].reach if", "ends = [2.0 if"),),
        ("compressed",),
    ),
    Mutant(
        "what a compressed index knows does not shrink with the changed nominees",
        ((DELTA, "greatest((SELECT count(*) FROM nominee) *", "greatest(cardinality(CAST("
          "%(nominated)s AS bigint[])) *"),),
        ("compressed",),
    ),
    Mutant(
        "the distance up to which the delta was searched is ignored",
        ((DELTA, "if fresh >= n:", "if False:"),),
    ),
    Mutant(
        "the delta is counted without transactions in progress",
        ((DELTA, "CAST(:in_progress AS xid8[]))", "CAST(:in_progress AS xid8[])) AND false"),),
        ("worker", "cases"),
    ),
    Mutant(
        "the single statement uses an outdated filter list",
        ((SINGLE, "if not first.usable:", "if False:"),),
        ("filters",),
    ),
    Mutant(
        "a tie with the unseen counts as complete",
        ((NEAREST, ".distance < candidates.seen_to", ".distance <= candidates.seen_to"),),
        ("candidates",),
    ),
    # The index is on this cast, with the 49 dimensions of the test encoder.
    Mutant(
        "the exact scan may use pgvector's index",
        (
            (
                NEAREST,
                "ORDER BY (e.vec <=> CAST(%(q)s AS halfvec)) + 0, e.picture_id",
                "AND e.picture_id <> -1 ORDER BY e.vec::halfvec(49) <=> CAST(%(q)s AS halfvec(49))",
            ),
        ),
        ("plans",),
    ),
    Mutant(
        "the highest id wins ties",
        (
            (
                NEAREST,
                'PAGE = ", page AS (SELECT * FROM best ORDER BY distance, product_id LIMIT',
                'PAGE = ", page AS (SELECT * FROM best ORDER BY distance, product_id DESC LIMIT',
            ),
        ),
        ("cases", "pages"),
    ),
    Mutant(
        "a delta that was cut off is used",
        ((PLANNER, "if delta_rows > max_delta_rows:", "if False:"),),
        ("paths", "soak"),
    ),
    Mutant(
        "a filtered search does not look deeper",
        ((PLANNER, "if is_complete(candidates, search.request.k):", "if True:"),),
        ("filters", "cases"),
    ),
    Mutant(
        "near-duplicates of the query are dropped below the threshold only",
        ((DEDUP, "distance <= query.near_query", "distance < query.near_query"),),
        ("dedup",),
    ),
    Mutant(
        "kept products are ordered worst first",
        ((DEDUP, "kept.append((-score, by_sku", "kept.append((score, by_sku"),),
        ("dedup", "pages"),
    ),
    Mutant(
        "the content of an index file is not verified",
        (
            (FAISS_IO, '"sha256").hexdigest() != sha256:', "\"sha256\").hexdigest() == 'wrong':"),
            (FAISS_IO, "if digest.hexdigest() != sha256:", "if digest.hexdigest() == 'wrong':"),
        ),
        ("files",),
    ),
    Mutant(
        "FAISS reads an index file that was not verified",
        ((FAISS_IO, '"sha256").hexdigest() != sha256:', "\"sha256\").hexdigest() == 'wrong':"),),
        ("files",),
    ),
    Mutant(
        "a fetched index file is kept before its hash is checked",
        ((FILE_STORE, "if digest.hexdigest() != build.sha256:", "if False:"),),
        ("files",),
    ),
    Mutant(
        "a fetched index file gets its name before its hash is checked",
        (
            (
                FILE_STORE,
                "if not _verified(read_file(build), build, draft.file.write):",
                "draft.file.writelines(read_file(build))\n"
                "                draft.publish(self.path(build.sha256))\n"
                "                if not _verified(read_file(build), build):",
            ),
            (
                FILE_STORE,
                "                draft.publish(self.path(build.sha256))\n"
                "                return True",
                "                return True",
            ),
        ),
        ("files",),
    ),
    Mutant(
        "files of retired builds are deleted before the commit",
        (
            (
                BUILDER,
                "        connection.commit()\n        for sha256 in unused_files:\n"
                "            self._files.remove(sha256)\n\n    def _model",
                "        for sha256 in unused_files:\n"
                "            self._files.remove(sha256)\n        connection.commit()\n\n"
                "    def _model",
            ),
        ),
        ("index",),
    ),
    Mutant(
        "builds with identical files share search parameters",
        ((FILE_STORE, "if index.parameters == build.parameters:", "if True:"),),
        ("index",),
    ),
    Mutant(
        "vectors of any length are indexed",
        ((READER, "~(deviation <= UNIT_TOLERANCE)", "deviation < 0"),),
        ("index",),
    ),
    Mutant(
        "vectors that are almost unit are indexed as they are",
        ((READER, "if fixable.any():", "if False:"),),
        ("index",),
    ),
    Mutant(
        "writers do not take turns",
        ((LOCKS, "SELECT pg_advisory_xact_lock(%(key)s)", "SELECT CAST(%(key)s AS bigint)"),),
        ("catalog", "models"),
    ),
    Mutant(
        "changes of models do not wait for writers",
        ((LIFECYCLE, "            locks.acquire(connection, LockKey.CATALOG_WRITE)\n", ""),),
        ("models",),
    ),
    Mutant(
        "two processes change pgvector's indexes at the same time",
        ((LOCKS, "pg_try_advisory_lock(:key, :m", "pg_try_advisory_lock_shared(:key, :m"),),
        ("locks",),
    ),
    Mutant(
        "changed pictures of a product are not written",
        ((ENTRIES, "[PICTURES] if pictures != after.pictures else []", ""),),
        ("catalog",),
    ),
    Mutant(
        "an absent column clears what is stored",
        ((ENTRIES, "for name in given.fields}", "for name in FIELDS}"),),
        ("partial sources",),
    ),
    Mutant(
        "an undo overwrites what was changed since",
        ((UNDO, "if row.after is not None and state == row.after:", "if row.after is not None:"),),
        ("undo",),
    ),
    Mutant(
        "an undo does not wait for writers",
        ((UNDO, "        history.lock_products(self._connection, skus)\n", ""),),
        ("undo",),
    ),
    Mutant(
        "swept pictures are not kept",
        ((PICTURES, "history.record_pictures(connection, run_id, ids)", "pass"),),
        ("undo",),
    ),
    Mutant(
        "a sweep does not lock the pictures",
        ((PICTURES, " ORDER BY id FOR UPDATE", ""),),
        ("catalog",),
    ),
    Mutant(
        "one embedded picture makes a batch complete",
        ((BATCH, "if not all(embedded", "if not any(embedded"),),
        ("catalog",),
    ),
    Mutant(
        "a batch may lack vectors of another maintained model",
        ((BATCH, "if not batch.vectors.keys() <= vectors.keys():", "if False:"),),
        ("models", "catalog"),
    ),
)  # fmt: skip


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
