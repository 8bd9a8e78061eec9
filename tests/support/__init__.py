"""Helpers that tests share: catalogues, encoders with known answers, servers, browsers."""
