"""SQL of the stamp `changed_in`: its triggers, and rows whose stamp must be renewed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.db import timeouts


@dataclass(frozen=True, slots=True)
class StampTrigger:
    """The trigger that stamps the rows of a table.

    `key` are the columns of the primary key, `column` is any other column, and `names` the column
    by which reports name a row.
    """

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
"""Tables without a correct trigger. It must fire for each row (tgtype 23: row, before, insert and
update), always, for every column, and after any other trigger that could overwrite the stamp."""

IN_THE_FUTURE = """changed_in >= pg_snapshot_xmax(pg_current_snapshot())
    AND changed_in IS DISTINCT FROM pg_current_xact_id_if_assigned()"""


def future_rows(stamp: StampTrigger) -> str:
    """SQL of an integrity check: the rows of a table with a stamp this cluster has not reached."""
    return f"SELECT {stamp.names} AS example FROM {stamp.table} WHERE {IN_THE_FUTURE}"


def tables_without_trigger(connection: Connection, stamp: StampTrigger) -> list[str]:
    """Tables and partitions on which the trigger is missing, disabled or followed by another
    one."""
    values = {"table": stamp.table, "function": stamp.function}
    return list(connection.execute(text(UNSTAMPED), values).scalars())


def enable(connection: Connection, stamp: StampTrigger) -> None:
    """Create and enable the trigger on the table and all its partitions.

    Rows may have changed without a stamp before. Older builds and filter lists become unusable by
    themselves, because they record the version of the trigger that stamped the rows they read.
    """
    timeouts.set_for_transaction(connection, lock_s=60)
    for statement in (
        f"CREATE OR REPLACE TRIGGER {stamp.trigger} BEFORE INSERT OR UPDATE ON {stamp.table}"
        f" FOR EACH ROW EXECUTE FUNCTION {stamp.function}()",
        f"ALTER TABLE {stamp.table} ENABLE ALWAYS TRIGGER {stamp.trigger}",
    ):
        connection.execute(text(statement))


def restamp(connection: Connection, stamp: StampTrigger, limit: int) -> int:
    """Rewrite up to `limit` rows with a stamp this cluster has not reached; returns their number.

    A dump restored in another cluster has such rows. The trigger stamps each rewritten row with the
    current transaction. The B-tree on the stamp finds the rows, so a table without any is cheap.
    """
    sql = f"""UPDATE {stamp.table} SET {stamp.column} = {stamp.column} WHERE ({stamp.key}) IN (
        SELECT {stamp.key} FROM {stamp.table} WHERE {IN_THE_FUTURE} LIMIT :limit)"""
    return connection.execute(text(sql), {"limit": limit}).rowcount
