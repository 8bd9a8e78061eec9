"""SQL of the languages of words: which one searches read, and the rows kept in each."""

from __future__ import annotations

from sqlalchemy import Connection, text

# The lock keeps a product from being deleted between reading it and writing its words. Rows that a
# trigger wrote meanwhile are as new or newer.
FILL = """
WITH batch AS MATERIALIZED (
    SELECT * FROM product WHERE id > :after ORDER BY id LIMIT :most FOR KEY SHARE
), written AS (
    INSERT INTO product_words
    SELECT p.id, CAST(:language AS text),
        weighted_words(CAST(CAST(:language AS text) AS regconfig),
            p.title, p.brand, p.category, p.colour)
            || product_codes(p.sku, p.attributes),
        weighted_words('simple', p.title, p.brand, p.category, p.colour)
    FROM batch AS p
    ON CONFLICT DO NOTHING
)
SELECT max(id) FROM batch"""

DROP_OTHERS = """
DELETE FROM product_words WHERE (product_id, language) IN (
    SELECT product_id, language FROM product_words
    WHERE language <> ALL(SELECT language FROM word_language) LIMIT :most)"""


def active(connection: Connection) -> str | None:
    """The text search configuration that searches read."""
    return connection.execute(text("SELECT language FROM word_language WHERE active")).scalar()


def available(connection: Connection) -> list[str]:
    """The text search configurations of the server that need no schema, by name."""
    sql = """SELECT cfgname::text FROM pg_ts_config WHERE pg_ts_config_is_visible(oid)
        ORDER BY cfgname"""
    return list(connection.execute(text(sql)).scalars())


def has_products(connection: Connection) -> bool:
    """Whether there is any product."""
    return bool(connection.execute(text("SELECT EXISTS (SELECT FROM product)")).scalar_one())


def add(connection: Connection, language: str) -> None:
    """Have triggers keep words in this language too, from the end of this transaction on.

    The lock waits for writers that do not know the language yet; readers go on.
    """
    _wait_for_writers(connection)
    sql = "INSERT INTO word_language (language) VALUES (:language) ON CONFLICT DO NOTHING"
    connection.execute(text(sql), {"language": language})


def fill(connection: Connection, language: str, after: int, most: int) -> int | None:
    """Write the words of the next `most` products after an id; the last id, None at the end."""
    values = {"language": language, "after": after, "most": most}
    return connection.execute(text(FILL), values).scalar()


def activate(connection: Connection, language: str) -> None:
    """Make this language the one that searches read."""
    connection.execute(text("UPDATE word_language SET active = false WHERE active"))
    sql = "UPDATE word_language SET active = true WHERE language = :language"
    connection.execute(text(sql), {"language": language})


def keep_active_only(connection: Connection) -> None:
    """Stop writing words in other languages than the active one."""
    _wait_for_writers(connection)
    connection.execute(text("DELETE FROM word_language WHERE NOT active"))


def drop_others(connection: Connection, most: int) -> int:
    """Delete up to `most` rows of languages that are no longer kept; the number deleted."""
    return connection.execute(text(DROP_OTHERS), {"most": most}).rowcount


def _wait_for_writers(connection: Connection) -> None:
    connection.execute(text("LOCK TABLE product IN SHARE MODE"))
