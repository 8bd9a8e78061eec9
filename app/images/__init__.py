"""Decodes bytes into upright RGB pictures; the only room that opens pictures or fetches URLs."""
