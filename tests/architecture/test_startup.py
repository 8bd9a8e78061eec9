"""What starts quickly pulls in little: looked at in processes of their own."""

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
"""What no command needs that only looks at the database."""


def loaded(program: str, **variables: str) -> set[str]:
    """All modules that a program has loaded at its end, beside those every Python has."""
    ends = "\nfinally: print(json.dumps(sorted(sys.modules)))"
    lines = program.replace("\n", "\n  ")
    ran = subprocess.run(
        [sys.executable, "-c", f"import json, sys\ntry:\n  {lines}{ends}"],
        cwd=REPO, env=os.environ | variables, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def foreign(modules: set[str]) -> set[str]:
    """The packages among them that do not come with Python."""
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
def test_the_command_line_begins_with_click_and_nothing_else(program: str) -> None:
    found = loaded(program)
    assert foreign(found) == {"app", "click"}
    ours = {name for name in found if name.startswith("app")}
    assert ours == {"app", "app.cli", "app.cli.lazy_group", "app.errors"}


def test_status_loads_nothing_that_only_a_search_needs(database_url: str, tmp_path: Path) -> None:
    program = "from app.cli import main\nsys.argv = ['lookalike', 'status', '--json']\nmain()"
    found = loaded(
        program, LOOKALIKE_DATABASE_URL=database_url, LOOKALIKE_HOME=str(tmp_path / "home")
    )
    assert found & (SLOW | {"faiss"}) == set() and "sqlalchemy" in found


def test_status_of_a_catalogue_with_an_index_does_not_load_faiss(app: App) -> None:
    add(app, numbered(20))
    app.indexer.rebuild()
    program = "from app.cli import main\nsys.argv = ['lookalike', 'status']\nmain()"
    settings = app.settings
    found = loaded(
        program,
        LOOKALIKE_DATABASE_URL=str(settings.database_url),
        LOOKALIKE_HOME=str(settings.home),
        LOOKALIKE_INDEX_DIR=str(settings.index_folder),
    )
    assert found & (SLOW | {"faiss"}) == set() and "app.index.faiss_io" in found


def test_a_process_looks_for_its_server_once(
    app: App, server_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    start = embedded_server.start
    monkeypatch.setattr(embedded_server, "start", lambda home: started.append(home) or start(home))
    with App(app.settings.model_copy(update={"home": server_home, "database_url": None})) as own:
        for engine in (own.engine, own.search_engine, own.fast_engine):
            assert engine.url.database == embedded_server.DATABASE
    assert started == [server_home]
