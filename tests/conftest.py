"""What the tests share: real photos, a PostgreSQL server, and a database of their own each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photos; without it, tests that need it are skipped, but not in CI."""
    folder = Path(os.environ.get("LOOKALIKE_TEST_DATA") or REPO.parent / "shared" / "data")
    if not folder.is_dir():
        reason = f"no photos in {folder}; set LOOKALIKE_TEST_DATA to the folder that holds them"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
