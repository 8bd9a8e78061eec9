"""The embedding models recorded in the database: load, add, backfill, activate, remove."""
