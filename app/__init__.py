"""Lookalike: find products by picture."""
