"""Finds the migrations (`alembic/`) and the SQL that is replayed after them (`sql/`)."""

from __future__ import annotations

from pathlib import Path

from app.errors import SchemaMismatch

_PLACES = (Path(__file__).with_name("schema_files"), Path(__file__).resolve().parents[2])
"""Inside the package, where an installed wheel has them; else the top of the source folder."""


def schema_folder() -> Path:
    """The folder that holds `alembic/` and `sql/`. Raises SchemaMismatch if an installation lacks
    them."""
    for place in _PLACES:
        if (place / "alembic" / "env.py").is_file() and any((place / "sql").glob("*.sql")):
            return place
    raise SchemaMismatch(
        f"This installation lacks the migrations, or the files of sql/, in {_PLACES[0]}. Install "
        "Lookalike again, from a complete wheel or with `pip install -e .` in its source folder."
    )
