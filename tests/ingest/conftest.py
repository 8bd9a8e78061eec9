"""Fixtures of the tests of ingests."""

from __future__ import annotations

import pytest

from ingest import prefetch


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three rows, so that a short source has several chunks."""
    monkeypatch.setattr(prefetch, "CHUNK_ROWS", 3)
