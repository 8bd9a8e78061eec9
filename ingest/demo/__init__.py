"""Draws the demo catalogue: a few hundred products, their pictures, and query photos."""

from ingest.demo.folder import draw_catalogue

__all__ = ["draw_catalogue"]
