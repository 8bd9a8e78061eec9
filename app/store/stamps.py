"""SQL of `changed_in`: rows that carry the stamp of a transaction that is still to come."""

from __future__ import annotations

from sqlalchemy import Connection, text

TABLES = {
    "embedding": ("picture_id, model_id", "vec"),
    "product": ("id", "sku"),
    "product_picture": ("product_id, picture_id", "position"),
}
"""The tables that are stamped: their key, and a column that is written as it is to stamp a row."""


def renew_future(connection: Connection, table: str, limit: int) -> int:
    """Stamp up to `limit` rows from the future anew; returns how many there were.

    The B-tree on the stamp finds the rows, so a table without any costs nothing.
    """
    key, column = TABLES[table]
    sql = f"""UPDATE {table} SET {column} = {column} WHERE ({key}) IN (
        SELECT {key} FROM {table}
        WHERE changed_in >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT :limit)"""
    return connection.execute(text(sql), {"limit": limit}).rowcount
