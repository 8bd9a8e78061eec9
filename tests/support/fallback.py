"""pgvector's index of the small catalogues of tests."""

from __future__ import annotations

import pytest

from app.bootstrap import App
from app.catalog import fallback_index
from app.db.queries import pgvector_index


def build_pgvector_index(app: App) -> None:
    """Build and measure the index of a catalogue of at least ten pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgvector_index, "MIN_ROWS", 10)
        assert fallback_index.maintain(app.engine)
