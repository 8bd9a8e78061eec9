"""The HTTP API: checks requests, calls one service each, and answers in JSON."""
