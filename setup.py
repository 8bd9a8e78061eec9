"""Puts the migrations and `sql/` into the package; all else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SCHEMA = ("alembic", "sql")
"""Folders at the top of the source tree, which are in `app/db/schema_files` of a wheel."""


class BuildWithSchema(build_py):
    """Builds the modules, and copies the folders of SCHEMA; an editable install reads them where
    they are."""

    def run(self) -> None:
        """Build into `build_lib`; files of an earlier build that are gone now do not stay."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "app", "db", "schema_files")
        shutil.rmtree(target, ignore_errors=True)
        for name in SCHEMA:
            shutil.copytree(name, target / name, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithSchema})
