"""The things that the demo draws, one module a kind."""
