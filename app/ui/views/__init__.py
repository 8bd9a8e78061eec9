"""The pages: search, duplicates, catalogue, index."""
