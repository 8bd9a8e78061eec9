"""Imports between rooms run downwards only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import REPO

# From the top down: a room may import from its own row and from those below it.
ROWS = [
    line.split()
    for line in """
    app.cli app.ui
    app.operations.worker app.operations.change_listener app.operations.worker app.operations.stop_signals
    app.operations.analyst_watchdog app.operations.hnsw_repair
    app.bootstrap
    ingest
    app.models.lifecycle app.models.backfill app.models.removal
    app.operations.health app.operations.metrics_server app.operations.catalog_stats app.index.status app.index.background_build
    app.operations.backup app.operations.restore app.operations.integrity
    app.search.service app.catalog.service app.index.builder app.evaluation.labelled_queries app.operations.health app.catalog.ingest_run app.operations.migrate
    app.evaluation.recall_audit app.operations.roles app.catalog.bulk_load app.catalog.batch_write
    app.search.paging app.search.explain app.evaluation.calibration_run app.duplicates.review app.search.facets
    app.search.fast_path app.search.filter_cache app.search.similarity_labels app.evaluation.planner_tuning app.duplicates.verdicts app.duplicates.report app.duplicates.review
    app.search.planner
    app.search.planner
    app.models.encoder_pool app.search.query_encoder app.search.validation app.search.retrieval app.search.query_sampler app.index.file_store app.index.file_store
    app.index.embedding_reader app.index.recall
    app.search.dedup app.encoders.batching app.search.vector_cache app.evaluation.metrics app.evaluation.html_report app.operations.backup_manifest
    app.db.queries app.index.faiss_index app.index.faiss_index app.index.faiss_io app.encoders.loading app.images.decoding app.images.sandbox app.search.filters
    app.db.queries.nearest app.duplicates.rules app.duplicates.normalization app.duplicates.typos app.duplicates.union_find app.evaluation.calibration
    app.index.kmeans app.index.kmeans
    app.index.rebuild_policy
    app.operations.metrics
    app.search.admission
    app.db.client_tools
    app.db.engine app.db.dsn app.db.driver_errors app.db.embedded.server app.db.embedded.os_user app.db.embedded.binaries
    app.images.decode_errors app.concurrency app.images.orientation app.images.pillow_warnings app.evaluation.metrics
    app.db.schema app.types app.config
    app.errors app
    """.strip().splitlines()
]
OWNERS = {
    "faiss": ("app.index.faiss_index",),
    "torch": ("app.encoders.loading",),
    "transformers": ("app.encoders.loading",),
    "openvino": ("app.encoders.openvino_runtime", "app.encoders.quantize_script"),
    "nncf": ("app.encoders.quantize_script",),
    "sentence_transformers": ("app.encoders.loading",),
    "streamlit": ("app.ui",),
    "pillow_heif": ("app.images.decoding",),
    "rapidfuzz": ("app.duplicates.typos",),
    "prometheus_client": ("app.operations.metrics", "app.operations.metrics_server"),
}


def modules() -> list[tuple[str, Path]]:
    return list(_modules())


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted([*REPO.glob("app/**/*.py"), *REPO.glob("ingest/**/*.py")]):
        parts = path.relative_to(REPO).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path) -> set[str]:
    """All modules a file names in imports, also in those inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def relative_imports(path: Path) -> list[int]:
    """The lines of imports that begin with a dot, which `imported` would not see."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level
    ]


def row(module: str) -> int | None:
    """The row of the longest room name that a module's name begins with."""
    places = {
        name: number
        for number, names in enumerate(ROWS)
        for name in names
        if module == name or module.startswith(name + ".")
    }
    return places[max(places, key=len)] if places else None


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_no_import_runs_up(module: str, path: Path) -> None:
    own = row(module)
    assert own is not None, f"{module} has no place in ROWS"
    known = {name for name, _ in modules()}
    upward = {name for name in imported(path) & known if (row(name) or 0) < own}
    assert not upward, f"{module} imports from above: {sorted(upward)}"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_every_import_names_its_module_in_full(module: str, path: Path) -> None:
    assert not relative_imports(path), f"{module} has relative imports"


def test_a_relative_import_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "room.py").write_text(
        "def late():\n    from . import cli\n    from ..cli import x\n"
    )
    assert relative_imports(tmp_path / "room.py") == [2, 3]


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_each_heavy_library_has_one_owner(module: str, path: Path) -> None:
    for library, owners in OWNERS.items():
        used = any(name.split(".")[0] == library for name in imported(path))
        assert not used or module.startswith(owners), f"{module} imports {library}"


def test_no_name_of_ours_hides_a_library() -> None:
    taken = {"faiss", "clip", "alembic", "streamlit"}
    assert not {path.stem for path in REPO.glob("*.py")} & taken
    assert not (REPO / "alembic" / "__init__.py").exists()


def test_a_module_at_every_path_is_looked_at() -> None:
    assert {"app.search.service", "app.cli.search", "ingest.demo.canvas"} <= {
        n for n, _ in modules()
    }
    assert sys.version_info >= (3, 11)
