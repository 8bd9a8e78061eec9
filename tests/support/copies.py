"""Databases with products for many tests: filled once in a process, and copied for each test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.bootstrap import App

Fill = Callable[[App], object]


def copied_for(fixture: str, fill: Fill) -> Any:
    """A fixture `database_url` for a module: for tests that use `fixture`, a copy of the database
    that `fill` has filled; for the others, one without products.

    Copying a database costs a tenth of writing and indexing a few hundred products.
    """

    @pytest.fixture(name="database_url")
    def url(
        request: pytest.FixtureRequest,
        template: str,
        new_database: Callable[[str | None], str],
        filled_database: Callable[[Fill], str],
    ) -> str:
        if fixture in request.fixturenames:
            return filled_database(fill)
        return new_database(template)

    return url
