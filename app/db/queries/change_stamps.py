"""SQL of the stamp `changed_in`: whether its triggers are on, and rows they must stamp anew."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class StampTrigger:
    """A table whose rows are stamped by a function; `key` names a row, `column` is any other of
    it, and `names` the one by which people know a row."""

    table: str
    function: str
    key: str
    column: str
    names: str

    @property
    def trigger(self) -> str:
        return f"{self.table}_stamp"


STAMPS = (
    StampTrigger("embedding", "stamp_embedding", "picture_id, model_id", "vec", "picture_id"),
    StampTrigger("product", "stamp_row", "id", "sku", "sku"),
    StampTrigger("product_picture", "stamp_row", "product_id, picture_id", "position", "uri"),
)
EMBEDDING = STAMPS[0]

UNSTAMPED = """
SELECT part.relid::regclass::text AS example
FROM (
    SELECT relid FROM pg_partition_tree(to_regclass(:table))
    UNION SELECT to_regclass(:table)) AS part (relid)
LEFT JOIN pg_trigger AS stamp ON stamp.tgrelid = part.relid
    AND stamp.tgfoid = to_regprocedure(:function || '()')
    AND stamp.tgtype = 23 AND stamp.tgenabled = 'A'
    AND stamp.tgqual IS NULL AND stamp.tgattr = ''
WHERE stamp.oid IS NULL OR EXISTS (
    SELECT FROM pg_trigger AS later
    WHERE later.tgrelid = part.relid AND NOT later.tgisinternal
        AND later.tgtype & 3 = 3 AND later.tgname > stamp.tgname)"""
"""It must fire for each row (tgtype 23: row, before, insert and update), always, on every column,
and after any other trigger that could overwrite it."""

IN_THE_FUTURE = """changed_in >= pg_snapshot_xmax(pg_current_snapshot())
    AND changed_in IS DISTINCT FROM pg_current_xact_id_if_assigned()"""


def tables_without_trigger(connection: Connection, stamp: StampTrigger) -> list[str]:
    """The tables and partitions on which the trigger is missing, off or overruled."""
    values = {"table": stamp.table, "function": stamp.function}
    return list(connection.execute(text(UNSTAMPED), values).scalars())


def enable(connection: Connection, stamp: StampTrigger) -> None:
    """Make the trigger what it must be, on the table and all its partitions.

    Rows may have changed unstamped; builds and lists made before are of no use any more and say so
    by themselves, as they remember which version of the trigger stamped what they read.
    """
    connection.execute(text("SET LOCAL lock_timeout = '60s'"))
    for statement in (
        f"CREATE OR REPLACE TRIGGER {stamp.trigger} BEFORE INSERT OR UPDATE ON {stamp.table}"
        f" FOR EACH ROW EXECUTE FUNCTION {stamp.function}()",
        f"ALTER TABLE {stamp.table} ENABLE ALWAYS TRIGGER {stamp.trigger}",
    ):
        connection.execute(text(statement))


def restamp(connection: Connection, stamp: StampTrigger, limit: int) -> int:
    """Rewrite up to `limit` rows whose stamp lies in this cluster's future, as a dump restored
    elsewhere has; returns how many there were.

    The trigger gives every written row the number of the writing transaction. The B-tree on the
    stamp finds the rows, so a table without any costs nothing.
    """
    sql = f"""UPDATE {stamp.table} SET {stamp.column} = {stamp.column} WHERE ({stamp.key}) IN (
        SELECT {stamp.key} FROM {stamp.table} WHERE {IN_THE_FUTURE} LIMIT :limit)"""
    return connection.execute(text(sql), {"limit": limit}).rowcount
