"""The objects that the demo draws, grouped by kind."""
