"""The PostgreSQL server that comes from a pip package: its programs, its start, its OS user."""
