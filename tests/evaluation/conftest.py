"""Fixtures of the tests of evaluation."""

from __future__ import annotations

import pytest

from app.bootstrap import App
from app.config import Settings
from support.colours import choose_colours


@pytest.fixture
def ours(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run here use the small encoder and this test's database."""
    for module in ("cli.calibrate", "bootstrap"):
        monkeypatch.setattr(f"app.{module}.App", lambda *_: App(settings, choose=choose_colours))
