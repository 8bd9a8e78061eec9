"""Lookalike for programs: what the package `lookalike` exports."""
