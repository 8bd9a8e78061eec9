"""The synonyms that searches by words use: lists, adds and removes them."""

from __future__ import annotations

from sqlalchemy import Connection, Engine

from app.db import locks
from app.db.engine import check_schema
from app.db.queries import synonyms, vocabulary
from app.db.text import check_text
from app.errors import BadInput


def listed(engine: Engine) -> list[tuple[str, str]]:
    """All pairs of a word and what a search for it finds too, sorted."""
    with engine.connect() as connection:
        check_schema(connection)
        return synonyms.listed(connection)


def add(engine: Engine, word: str, means: str, *, one_way: bool = False) -> bool:
    """Let searches for `word` find `means` too, and the reverse unless `one_way`; whether that is
    new. Both may be several words. Raises BadInput for text without a word, and for twice the
    same."""
    with locks.transaction(engine) as connection:
        check_schema(connection)
        one, other = _words(connection, word), _words(connection, means)
        if one == other:
            raise BadInput(f"{word!r} and {means!r} are the same words already.")
        pairs = [(one, other)] if one_way else [(one, other), (other, one)]
        return any([synonyms.add(connection, *pair) for pair in pairs])


def remove(engine: Engine, word: str, means: str) -> bool:
    """Remove the synonym in both directions; whether it was there. Raises BadInput."""
    with locks.transaction(engine) as connection:
        check_schema(connection)
        one, other = _words(connection, word), _words(connection, means)
        pairs = ((one, other), (other, one))
        return any([synonyms.remove(connection, *pair) for pair in pairs])


def _words(connection: Connection, typed: str) -> str:
    """The text as titles are split into words."""
    check_text("synonym", typed)
    [chunk] = vocabulary.split(connection, [typed])
    if not chunk.words:
        raise BadInput(f"{typed!r} has no word.")
    return " ".join(chunk.words)
