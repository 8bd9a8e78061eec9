"""The stamp `changed_in` on `product` and `product_picture`, so that a cached list of the pictures
that pass a filter can be updated with the changes since.

Existing rows get the value 0, which is before every snapshot.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = ("product", "product_picture")

FUNCTION = """
CREATE OR REPLACE FUNCTION stamp_row() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.changed_in := pg_current_xact_id();
    RETURN NEW;
END $$"""

# ALWAYS: a restored dump and logical replication carry old transaction ids.
STAMPED = """
ALTER TABLE {table} ADD COLUMN IF NOT EXISTS changed_in xid8 NOT NULL DEFAULT '0';
COMMENT ON COLUMN {table}.changed_in IS
    'transaction that last wrote this row; set by a trigger, whatever the statement says';
CREATE OR REPLACE TRIGGER {table}_stamp BEFORE INSERT OR UPDATE ON {table}
    FOR EACH ROW EXECUTE FUNCTION stamp_row();
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_stamp;
"""


def upgrade() -> None:
    _in_turn(FUNCTION, *(STAMPED.format(table=table) for table in TABLES))
    with op.get_context().autocommit_block():
        for table in TABLES:  # an interrupted run leaves an invalid index
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {table}_changed_in_idx")
            op.execute(f"CREATE INDEX CONCURRENTLY {table}_changed_in_idx ON {table} (changed_in)")


def downgrade() -> None:
    _in_turn(
        *(f"DROP TRIGGER IF EXISTS {table}_stamp ON {table}" for table in TABLES),
        *(f"ALTER TABLE {table} DROP COLUMN IF EXISTS changed_in" for table in TABLES),
        "DROP FUNCTION IF EXISTS stamp_row()",
    )


def _in_turn(*parts: str) -> None:
    """Run each statement in its own transaction. One transaction that locks several tables could
    deadlock with a search that locks them in another order."""
    for part in parts:
        op.execute("SET LOCAL lock_timeout = '2s'")
        op.execute(part)
        with op.get_context().autocommit_block():
            pass
