"""Formats of product feeds: one module each, and the recognition of a file's format."""
