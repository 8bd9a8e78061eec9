"""A room imports only from rows below its own, and each library has one owner."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import REPO

# From the top down. A room is the longest of these names that a module's name begins with.
ROWS = [
    line.split()
    for line in """
    app.cli app.ui app.api
    app.bootstrap
    ingest app.operations app.evaluation app.models
    app.search app.catalog
    app.index app.duplicates app.encoders
    app.db app.images
    app.types app.errors app.config app.concurrency app.atomic_files app.csv_input app.vectors app
    """.strip().splitlines()
]
SIBLINGS = {
    ("app.cli", "app.ui"),  # `lookalike page` starts the page
    ("app.concurrency", "app.errors"),
    ("app.types", "app.errors"),
    ("app.config", "app.errors"),
    ("app.atomic_files", "app.errors"),
    ("app.csv_input", "app.errors"),
    ("app.vectors", "app.types"),
}
"""Imports between rooms of one row that are allowed: (from, of)."""

DATABASE_IMPORTS = {
    # `lookalike db` prints the address of the server, starts it and stops it.
    "app.cli.database": ("app.db.dsn", "app.db.embedded", "app.db.engine.database_url"),
    # A check of characters that needs no database.
    "app.ui.search_form.url_state": ("app.db.text.check_text",),
}
"""What modules of app.cli and app.ui may import of app.db; all others ask services."""

OWNERS = {
    "faiss": "app.index",
    "torch": "app.encoders",
    "transformers": "app.encoders",
    "openvino": "app.encoders",
    "nncf": "app.encoders",
    "sentence_transformers": "app.encoders",
    "streamlit": "app.ui",
    "pillow_heif": "app.images",
    "socket": "app.images",
    **dict.fromkeys(
        ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp"), "app.images"
    ),
    "http.client": "app.images",
    "urllib.request": "app.images",
    "rapidfuzz": "app.duplicates.typos",
    "prometheus_client": "app.operations",
}
"""The room that may import a library."""


def modules() -> list[tuple[str, Path]]:
    return list(_modules())


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted([*REPO.glob("app/**/*.py"), *REPO.glob("ingest/**/*.py")]):
        parts = path.relative_to(REPO).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path) -> set[str]:
    """All modules a file names in imports, also in those inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str | None:
    rooms = [name for row in ROWS for name in row if f"{module}.".startswith(f"{name}.")]
    return max(rooms, key=len, default=None)


def row(name: str) -> int:
    return next(number for number, rooms in enumerate(ROWS) if name in rooms)


def allowed(own: str, other: str) -> bool:
    return own == other or row(other) > row(own) or (own, other) in SIBLINGS


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_a_room_imports_only_from_rows_below(module: str, path: Path) -> None:
    own = room(module)
    assert own is not None, f"{module} is in no room"
    others = {other: room(other) for other in imported(path)}
    wrong = sorted(name for name, other in others.items() if other and not allowed(own, other))
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize(
    ("module", "path"),
    [(module, path) for module, path in modules() if room(module) in ("app.cli", "app.ui")],
    ids=lambda value: str(value),
)
def test_the_cli_and_the_page_ask_services_and_never_the_database(module: str, path: Path) -> None:
    allowed_names = DATABASE_IMPORTS.get(module, ())
    wrong = sorted(
        name
        for name in imported(path)
        if f"{name}.".startswith("app.db.")
        and not any(f"{name}.".startswith(f"{each}.") for each in allowed_names)
    )
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_each_library_has_one_owner(module: str, path: Path) -> None:
    names = imported(path)
    libraries = {".".join(name.split(".")[:length]) for name in names for length in (1, 2)}
    wrong = [
        library
        for library, owner in OWNERS.items()
        if library in libraries and not f"{module}.".startswith(f"{owner}.")
    ]
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_pictures_are_opened_in_one_room(module: str, path: Path) -> None:
    """`Image.new` draws, which is allowed everywhere; `Image.open` trusts a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    opens = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("Image.open")
    } | {0 for name in imported(path) if name == "PIL.Image.open"}
    assert not opens or room(module) == "app.images", f"{module} opens a picture: lines {opens}"
