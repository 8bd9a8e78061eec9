"""The embedded PostgreSQL server from a Python package: its programs, start and stop, OS user."""
