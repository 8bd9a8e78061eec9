"""Runs backfills and ingests on a Ray cluster; needs the extra `ray`."""
