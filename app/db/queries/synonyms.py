"""SQL of the table of synonyms."""

from __future__ import annotations

from sqlalchemy import Connection, text

SAVE = "INSERT INTO synonym VALUES (:word, :means) ON CONFLICT DO NOTHING RETURNING word"

DELETE = "DELETE FROM synonym WHERE word = :word AND means = :means"


def listed(connection: Connection) -> list[tuple[str, str]]:
    """All pairs of a word and what it also means, sorted."""
    rows = connection.execute(text("SELECT word, means FROM synonym ORDER BY word, means"))
    return [(row[0], row[1]) for row in rows]


def add(connection: Connection, word: str, means: str) -> bool:
    """Let searches for `word` find `means` too; whether that is new. Both are as
    `split_words` writes them."""
    return connection.execute(text(SAVE), {"word": word, "means": means}).first() is not None


def remove(connection: Connection, word: str, means: str) -> bool:
    """The opposite; whether the pair was there."""
    return bool(connection.execute(text(DELETE), {"word": word, "means": means}).rowcount)
