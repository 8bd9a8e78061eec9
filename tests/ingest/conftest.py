"""Fixtures of the tests of ingests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest import prefetch
from support.picture_server import PictureServer, picture_server


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three rows, so that a short source has several chunks."""
    monkeypatch.setattr(prefetch, "CHUNK_ROWS", 3)


@pytest.fixture
def shop() -> Iterator[PictureServer]:
    with picture_server() as server:
        yield server
