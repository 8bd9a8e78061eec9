"""Builds that are measured with fewer queries, for tests that are not about the measure.

An index in inverted lists is tuned with all of them, again and again: with 400, a build of 1,600
rows takes seconds.
"""

from __future__ import annotations

import pytest

from app.index.recall import RecallBenchmark


def few_queries(patch: pytest.MonkeyPatch, queries: int = 100) -> None:
    """Measure builds with this many queries until the patch is undone."""
    patch.setitem(RecallBenchmark.__init__.__kwdefaults__, "sample", queries)
