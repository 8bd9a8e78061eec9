"""Freshness under concurrency: every search equals an exact search in the same snapshot."""

from __future__ import annotations

from app.bootstrap import App
from freshness.soak import soak


def test_searches_among_writers_and_builders_are_exact(app: App, database_url: str) -> None:
    tally = soak(app, database_url, searches=250)
    assert tally.wrong == []
    assert tally.searches >= 250
    assert tally.paths["faiss"] > 0.8 * tally.searches
    assert tally.by_faiss_with_both > 0.6
    assert tally.at_once > 0.1 * tally.searches
