"""The only room with SQL and with connections to PostgreSQL."""
