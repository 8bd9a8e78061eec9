"""Startup imports: fast commands do not load heavy packages (measured in subprocesses)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.bootstrap import App
from app.db.embedded import server as embedded_server
from support.paths import REPO
from support.shop import add, numbered

SLOW = {
    "torch", "transformers", "sentence_transformers", "openvino", "streamlit", "PIL", "rapidfuzz",
    "httpcore2",
    "prometheus_client", "rich", "alembic", "app.search.service", "app.images.decoding", "ingest",
}  # fmt: skip
"""Modules that no command needs that only reads the database."""


def loaded(program: str, **variables: str) -> set[str]:
    """All modules loaded at the end of a program."""
    ends = "\nfinally: print(json.dumps(sorted(sys.modules)))"
    lines = program.replace("\n", "\n  ")
    process = subprocess.run(
        [sys.executable, "-c", f"import json, sys\ntry:\n  {lines}{ends}"],
        cwd=REPO, env=os.environ | variables, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return set(json.loads(process.stdout.splitlines()[-1]))


def foreign(modules: set[str]) -> set[str]:
    """The top-level packages that are not part of the standard library."""
    bare = loaded("pass")
    return {name.partition(".")[0] for name in modules - bare} - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    "program",
    [
        "import app.cli",
        "from app.cli import main\nsys.argv = ['lookalike', '--help']\nmain()",
        "from app.cli import main\nsys.argv = ['lookalike', '--version']\nmain()",
    ],
    ids=["import", "--help", "--version"],
)
def test_the_command_line_imports_only_click_at_startup(program: str) -> None:
    modules = loaded(program)
    assert foreign(modules) == {"app", "click"}
    ours = {name for name in modules if name.startswith("app")}
    assert ours == {"app", "app.cli", "app.cli.ending", "app.cli.lazy_group", "app.errors"}


def test_status_does_not_load_modules_of_the_search(database_url: str, tmp_path: Path) -> None:
    program = "from app.cli import main\nsys.argv = ['lookalike', 'status', '--json']\nmain()"
    modules = loaded(
        program, LOOKALIKE_DATABASE_URL=database_url, LOOKALIKE_HOME=str(tmp_path / "home")
    )
    assert modules & (SLOW | {"faiss"}) == set() and "sqlalchemy" in modules


def test_status_of_a_catalogue_with_an_index_does_not_load_faiss(app: App) -> None:
    add(app, numbered(20))
    app.indexer.rebuild()
    program = "from app.cli import main\nsys.argv = ['lookalike', 'status']\nmain()"
    settings = app.settings
    modules = loaded(
        program,
        LOOKALIKE_DATABASE_URL=str(settings.database_url),
        LOOKALIKE_HOME=str(settings.home),
        LOOKALIKE_INDEX_DIR=str(settings.index_folder),
    )
    assert modules & (SLOW | {"faiss"}) == set() and "app.index.faiss_io" in modules


def test_a_process_starts_its_server_once(
    app: App, server_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    start = embedded_server.start
    monkeypatch.setattr(embedded_server, "start", lambda home: started.append(home) or start(home))
    with App(app.settings.model_copy(update={"home": server_home, "database_url": None})) as own:
        for engine in (own.engine, own.search_engine, own.fast_engine):
            assert engine.url.database == embedded_server.DATABASE
    assert started == [server_home]
