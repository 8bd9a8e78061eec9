"""The inputs of the search page and their state."""
