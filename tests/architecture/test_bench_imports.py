"""What benchmarks and release scripts import of this project exists: most of them run seldom."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from support.paths import REPO

OURS = {"app", "bench", "ingest", "lookalike"}


def source_of(module: str) -> Path | None:
    """The file of a module, None if there is none."""
    place = REPO.joinpath(*module.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@cache
def names_in(file: Path) -> frozenset[str]:
    """The names that a module defines or imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.ImportFrom(names=names) | ast.Import(names=names):
                found |= {each.asname or each.name.partition(".")[0] for each in names}
    return frozenset(found)


def missing(file: Path) -> list[str]:
    """What a file imports of modules of this project that do not have it."""
    absent = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module or node.level:
            continue
        if node.module.partition(".")[0] not in OURS:
            continue
        module = source_of(node.module)
        known = names_in(module) if module else frozenset()
        absent += [
            f"{node.module}.{each.name}"
            for each in node.names
            if each.name not in known and source_of(f"{node.module}.{each.name}") is None
        ]
    return absent


def test_what_benchmarks_and_release_scripts_import_exists() -> None:
    files = [file for folder in ("bench", "release") for file in (REPO / folder).rglob("*.py")]
    assert len(files) > 50
    found = {str(file.relative_to(REPO)): missing(file) for file in files}
    assert {file: absent for file, absent in found.items() if absent} == {}
