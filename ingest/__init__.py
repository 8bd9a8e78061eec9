"""Loads sources of products (a CSV, a folder, the drawn demo) into the catalogue."""
