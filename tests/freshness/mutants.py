"""Break the horizon on purpose, one way at a time, and show that the tests notice.

    cd tests && python mutants.py

Each mutant is a copy of the code in a temporary folder with a few words replaced; the soak run, the
state machine and the cases are let loose on it until one of them fails. Exits with 1 if a mutant
survives them all. The code as it is goes first, and must pass.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from support.paths import REPO

PARTS = ("app", "alembic", "sql", "tests", "pyproject.toml")

HUNTERS = {
    "soak": ["tests/freshness/soak.py", "--searches", "1500"],
    "machine": ["-m", "pytest", "-qx", "tests/freshness/test_horizon_machine.py"],
    "cases": [
        "-m",
        "pytest",
        "-qx",
        "tests/freshness/test_horizon_cases.py",
        "tests/search/test_service.py",
    ],
}
TELLING = ("E  ", "different: ", "a search failed")

SINGLE_STATEMENT = "app/db/queries/single_statement.py"
DELTA, RETRIEVAL = "app/db/queries/index_delta.py", "app/search/retrieval.py"
CATALOGUE, CONTENT = "alembic/versions/0001_catalogue.py", "app/index/embedding_reader.py"

HELD = "pg_visible_in_snapshot(e.changed_in, CAST(%(snapshot)s AS pg_snapshot))"
BEGINS = "e.changed_in >= pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))"
IN_PROGRESS = "e.changed_in = ANY(CAST(%(in_progress)s AS xid8[]))"
STARTED = (
    "(SELECT started_at FROM index_build"
    " WHERE snapshot::text = CAST(%(snapshot)s AS text) ORDER BY id DESC LIMIT 1)"
)
TRUSTED = "if (first.active, first.newest) != (request.model.id, request.build.id):"
GUARD = "unstamped := change_stamps.tables_without_trigger(connection, change_stamps.EMBEDDING)"
OPENED = "usable = index_builds.usable(request.connection, request.model.id)"
TRIGGER = """CREATE TRIGGER embedding_stamp BEFORE INSERT OR UPDATE ON embedding
    FOR EACH ROW EXECUTE FUNCTION stamp_embedding();
"""
ALWAYS = "ALTER TABLE embedding ENABLE ALWAYS TRIGGER embedding_stamp;"
PARTITIONED = "changed_in xid8 NOT NULL,"


@dataclass(frozen=True)
class Mutant:
    """What is wrong with it, and the words to replace: file, old, new."""

    name: str
    changes: tuple[tuple[str, str, str], ...]


NOT_GUARDED = (CONTENT, GUARD, f"False and ({GUARD})")
ORDINARY = (CATALOGUE, ALWAYS, "")
ONLY_DEFAULT = (
    (CATALOGUE, TRIGGER, ""),
    ORDINARY,
    (CATALOGUE, PARTITIONED, "changed_in xid8 NOT NULL DEFAULT pg_current_xact_id(),"),
)

MUTANTS = (
    Mutant("nothing", ()),
    Mutant(
        "changed_in is replaced by updated_at",
        (
            (CATALOGUE, PARTITIONED, PARTITIONED + "\n    updated_at timestamptz,"),
            (CATALOGUE, "NEW.changed_in := pg_current_xact_id();", "NEW.updated_at := now();"
             "\n    NEW.changed_in := pg_current_xact_id();"),
            (DELTA, BEGINS, f"e.updated_at >= {STARTED}"),
            (DELTA, IN_PROGRESS, "false"),
            (DELTA, HELD, f"e.updated_at < {STARTED}"),
        ),
    ),
    Mutant(
        "the row condition is changed_in < xmax",
        (
            (DELTA, IN_PROGRESS, "false"),
            (DELTA, HELD,
             "e.changed_in < pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))"),
        ),
    ),
    Mutant(
        "a search uses a build its snapshot does not see",
        (
            (RETRIEVAL, OPENED, "with request.connection.engine.connect() as apart:\n"
             "        usable = index_builds.usable(apart, request.model.id)"),
        ),
    ),
    Mutant(
        "a search in one statement trusts the build it knows",
        ((SINGLE_STATEMENT, TRUSTED, "if False:"),),
    ),
    # What a default does, in the trigger's place, so that nothing else gets in the way.
    Mutant(
        "the stamp is only a column default",
        (
            (
                CATALOGUE,
                "NEW.changed_in := pg_current_xact_id();",
                "NEW.changed_in := coalesce(NEW.changed_in, pg_current_xact_id());",
            ),
        ),
    ),
    Mutant("the stamp is only a default, with the guard", ONLY_DEFAULT),
    Mutant(
        "the stamp trigger is an ordinary one",
        (ORDINARY, NOT_GUARDED),
    ),
    Mutant("changed rows stay among the nominees", ((DELTA, f"\n        AND {HELD}", ""),)),
    Mutant(
        "the bound of the index is not heeded",
        ((DELTA, "[] if seen_to is None else [seen_to - TOLERANCE]", "[]"),),
    ),
    Mutant(
        "the bound of the delta is not heeded",
        ((DELTA, "    if fresh >= n:\n        ends.append(farthest)\n", ""),),
    ),
)  # fmt: skip


def copied(mutant: Mutant, folder: Path) -> None:
    """The code with the mutant's changes; each text to replace must be there once."""
    for part in PARTS:
        source = REPO / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    for name, old, new in mutant.changes:
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has {text.count(old)} times: {old}"
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def hunted(folder: Path, hunter: str) -> str | None:
    """What a hunter says of the code in a folder; None if it found nothing wrong."""
    environment = os.environ | {"PYTHONPATH": str(folder), "HORIZON_ONCE": "1"}
    done = subprocess.run(
        [sys.executable, *HUNTERS[hunter]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    assert "SyntaxError" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert "ProgrammingError" not in done.stdout + done.stderr, done.stdout + done.stderr
    lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(TELLING)]
    return (telling or lines[-1:] or ["it failed without a word"])[0]


def hunt(mutant: Mutant, hunters: list[str], go_on: bool) -> bool:
    """Let the hunters loose on a mutant, one after the other; whether any caught it."""
    caught = False
    with tempfile.TemporaryDirectory(prefix="lookalike-mutant-") as name:
        folder = Path(name)
        copied(mutant, folder)
        for hunter in hunters:
            began = time.monotonic()
            said = hunted(folder, hunter)
            seconds = time.monotonic() - began
            verdict = f"caught: {said[:140]}" if said else "found nothing"
            print(f"  {hunter} ({seconds:.0f} s) {verdict}", flush=True)
            caught |= said is not None
            if caught and not go_on:
                break
    return caught


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("words", nargs="*", help="only mutants whose name has one of these words")
    parser.add_argument("--by", nargs="*", choices=list(HUNTERS), default=list(HUNTERS))
    parser.add_argument("--all", action="store_true", help="go on once a mutant was caught")
    chosen = parser.parse_args()
    survivors = []
    for mutant in MUTANTS:
        if chosen.words and not any(word in mutant.name for word in chosen.words):
            continue
        print(f"{mutant.name}:", flush=True)
        if hunt(mutant, chosen.by, chosen.all) == (mutant is MUTANTS[0]):
            survivors.append(mutant.name)
    print(f"wrong: {'; '.join(survivors)}" if survivors else "all as it should be")
    raise SystemExit(bool(survivors))


if __name__ == "__main__":
    main()
