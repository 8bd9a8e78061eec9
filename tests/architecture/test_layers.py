"""A room imports only from rooms in lower rows, and each library has one owner."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.paths import REPO

pytestmark = pytest.mark.xdist_group("layers")  # the modules are parsed once

# From top to bottom. A module belongs to the room with the longest matching prefix.
ROWS = [
    line.split()
    for line in """
    lookalike
    app.cli app.ui app.api app.library
    app.cluster
    app.bootstrap
    ingest app.operations app.evaluation app.models app.cluster.parts
    app.search app.catalog app.cluster.actors
    app.index app.duplicates app.encoders app.cluster.session app.cluster.portable_settings
    app.db app.images app.cluster.attempts
    app.types app.errors app.config app.concurrency app.atomic_files \
        app.csv_columns app.year_and_price app.vectors app.secret_files app
    """.strip().splitlines()
]
SIBLINGS = {
    ("app.cli", "app.ui"),  # `lookalike page` starts the page
    ("app.cli", "app.api"),  # `lookalike api` starts the API
    ("app.concurrency", "app.errors"),
    ("app.types", "app.errors"),
    ("app.config", "app.errors"),
    ("app.atomic_files", "app.errors"),
    ("app.csv_columns", "app.errors"),
    ("app.secret_files", "app.errors"),
    ("app.vectors", "app.types"),
}
"""Allowed imports between rooms of one row: (importer, imported)."""

DATABASE_IMPORTS = {
    # `lookalike db` prints the URL of the server, starts it and stops it.
    "app.cli.database": ("app.db.dsn", "app.db.embedded", "app.db.engine.database_url"),
    # Validation of characters, which needs no database.
    "app.ui.search_form.url_state": ("app.db.text.check_text",),
    "app.api.product_rows": ("app.db.text.is_storable",),
}
"""Modules of app.db that the rooms of the top row may import; for all else they call services."""

OWNERS = {
    "faiss": "app.index",
    "torch": "app.encoders",
    "transformers": "app.encoders",
    "openvino": "app.encoders",
    "nncf": "app.encoders",
    "sentence_transformers": "app.encoders",
    "streamlit": "app.ui",
    **dict.fromkeys(("fastapi", "uvicorn", "anyio"), "app.api"),
    "starlette": ("app.api", "app.ui.page_files", "app.ui.page_app"),
    "pillow_heif": "app.images",
    # connects, and listens
    "socket": (
        "app.images",
        "app.api.addresses",
        "app.cluster.session",
        "app.cli.running",
        "app.cli.search_listener",
    ),
    **dict.fromkeys(
        ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp"), "app.images"
    ),
    "sqlalchemy.text": "app.db",
    "psycopg.sql": "app.db",
    "http.client": "app.images",
    "urllib.request": "app.images",
    "rapidfuzz": "app.duplicates.typos",
    "prometheus_client": "app.operations",
    "sqlite3": "app.db",
    "ray": "app.cluster.session",
    "pyarrow": "ingest.feeds.parquet",
    "xml": "ingest.feeds.google_xml",
}
"""The room that may import a library."""

SQL = re.compile(
    r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|LOCK|SET|RESET|SHOW|NOTIFY|LISTEN|COPY"
    r"|TRUNCATE|ANALYZE|VACUUM|GRANT|REVOKE|DO)\s"
)
"""Matches the start of an SQL statement; prose does not start with a word in capitals."""


def modules() -> Iterator[tuple[str, Path]]:
    folders = ("app", "ingest", "lookalike")
    for path in sorted(path for folder in folders for path in REPO.glob(f"{folder}/**/*.py")):
        parts = path.relative_to(REPO).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path) -> frozenset[str]:
    """All modules that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def room(module: str) -> str | None:
    rooms = [name for row in ROWS for name in row if f"{module}.".startswith(f"{name}.")]
    return max(rooms, key=len, default=None)


def row(name: str) -> int:
    return next(number for number, rooms in enumerate(ROWS) if name in rooms)


def allowed(own: str, other: str) -> bool:
    return own == other or row(other) > row(own) or (own, other) in SIBLINGS


def test_every_module_is_examined() -> None:
    names = {module for module, _ in modules()}
    assert {"app", "app.search.service", "app.db.queries.nearest", "ingest.demo.canvas"} <= names


def test_a_relative_import_is_refused(tmp_path: Path) -> None:
    (tmp_path / "room.py").write_text("def late():\n    from ..cli import x\n")
    with pytest.raises(AssertionError, match=r"room\.py:2: a relative import"):
        imported(tmp_path / "room.py")


def test_no_name_of_ours_hides_a_library() -> None:
    taken = {"faiss", "clip", "alembic", "streamlit"}
    assert not {path.stem for path in REPO.glob("*.py")} & taken
    assert not (REPO / "alembic" / "__init__.py").exists()


def test_a_room_imports_only_from_rows_below() -> None:
    assert [module for module, _ in modules() if room(module) is None] == []
    assert [
        f"{module} imports {name}"
        for module, path in modules()
        for name in sorted(imported(path))
        if (other := room(name)) and not allowed(str(room(module)), other)
    ] == []


def test_the_package_for_programs_only_exports() -> None:
    tree = parsed(REPO / "lookalike" / "__init__.py")
    others = [node for node in tree.body[1:] if not isinstance(node, ast.ImportFrom)]
    assert [ast.unparse(node).split(" = ")[0] for node in others] == ["__all__"]
    names = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom)
             for alias in node.names}  # fmt: skip
    assert names == set(ast.literal_eval(others[0].value))  # type: ignore[attr-defined]


def test_the_top_row_calls_services_and_never_the_database() -> None:
    assert [
        f"{module} imports {name}"
        for module, path in modules()
        if room(module) in ("app.cli", "app.ui", "app.api", "app.library")
        for name in sorted(imported(path))
        if belongs(name, "app.db")
        and not any(belongs(name, each) for each in DATABASE_IMPORTS.get(module, ()))
    ] == []


def test_each_library_has_one_owner() -> None:
    assert [
        f"{module} imports {library}"
        for module, path in modules()
        for library, owners in OWNERS.items()
        if any(belongs(name, library) for name in imported(path))
        and not any(
            belongs(module, each) for each in (owners if isinstance(owners, tuple) else (owners,))
        )
    ] == []


def test_sql_is_in_one_room() -> None:
    """Besides migrations and the files of `sql/`."""
    assert [
        f"{path.relative_to(REPO)}:{line} has SQL"
        for module, path in modules()
        if room(module) != "app.db"
        for line, string in strings(path)
        if SQL.match(string)
    ] == []


def test_only_one_room_opens_pictures() -> None:
    """`Image.new` draws and is allowed everywhere; `Image.open` reads untrusted files."""
    assert [
        f"{module} opens a picture"
        for module, path in modules()
        if room(module) != "app.images" and opens_a_picture(path)
    ] == []


def belongs(name: str, package: str) -> bool:
    """Whether a dotted name is a package or a module in it."""
    return f"{name}.".startswith(f"{package}.")


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The string constants of a file with their lines, without docstrings."""
    nodes = list(ast.walk(parsed(path)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        constant = isinstance(node, ast.Constant) and id(node) not in docstrings
        if constant and isinstance(node.value, str):
            yield node.lineno, node.value


def opens_a_picture(path: Path) -> bool:
    return "PIL.Image.open" in imported(path) or any(
        isinstance(node, ast.Attribute) and ast.unparse(node).endswith("Image.open")
        for node in ast.walk(parsed(path))
    )
