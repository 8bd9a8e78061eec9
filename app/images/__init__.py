"""Decodes bytes into upright RGB pictures; the only package that opens pictures or fetches URLs."""
