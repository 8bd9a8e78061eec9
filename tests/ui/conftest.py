"""Fixtures of the pages without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from streamlit.components.v2 import manifest_scanner

from app.bootstrap import App
from app.config import Settings
from app.images.sandbox import PictureSandbox
from app.ui.shared import services
from app.ui.views.catalogue import cached_overview


@pytest.fixture(autouse=True, scope="session")
def scanned_once() -> Iterator[None]:
    """Streamlit searches all installed packages for components once, not once for each AppTest."""
    with pytest.MonkeyPatch.context() as patch:
        scan = cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture(scope="session")
def sandbox() -> Iterator[PictureSandbox]:
    """Decodes the photos of all tests in one child process."""
    with PictureSandbox() as sandbox:
        yield sandbox


@pytest.fixture
def catalogue(app: App, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """Services for the tests; the page creates its own from the environment."""
    monkeypatch.setenv("LOOKALIKE_HOME", str(settings.home))
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", str(settings.database_url))
    monkeypatch.setenv("LOOKALIKE_PAGE_METRICS_PORT", "0")
    services.clear()
    cached_overview.clear()  # type: ignore[attr-defined]
    yield app
    services().close()
    services.clear()
