"""The only package with SQL and with connections to PostgreSQL."""
