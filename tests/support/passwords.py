"""A password of special characters, and what an engine answers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, text

CANARY = "c4nary"
SECRET = f"""{CANARY} '"\\ @/:%41?#&é+=;"""
"""A password with all characters that are special in a URL, a shell or libpq."""


def ask(engine: Engine, question: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(question)).scalar()
