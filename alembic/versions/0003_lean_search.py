"""Searches read which products show a picture from the index alone; no trigger tells of changes;
builds note what stamped the rows they read.

A transaction that notifies cannot be prepared (PREPARE TRANSACTION), so a trigger on `embedding`
that does so forbids that to everybody. Lookalike's own writers tell the workers instead; changes
made by others are seen when the worker looks next.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


TRIGGER = """
CREATE OR REPLACE FUNCTION tell_embedding_changed() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('lookalike_changed', '');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER embedding_changed AFTER INSERT OR UPDATE OR DELETE ON embedding
    FOR EACH STATEMENT EXECUTE FUNCTION tell_embedding_changed();
"""


# IF EXISTS everywhere: an index takes long, and who was interrupted there begins again.
def upgrade() -> None:
    _in_turn(
        # Some databases have this column from an earlier form of 0002.
        "ALTER TABLE index_build ADD COLUMN IF NOT EXISTS stamped_by text",
        "DROP TRIGGER IF EXISTS embedding_changed ON embedding",
        # squawk: no client calls a trigger's function.
        "-- squawk-ignore ban-drop-function\nDROP FUNCTION IF EXISTS tell_embedding_changed()",
    )
    with op.get_context().autocommit_block():
        _replace("product_picture_picture_id_product_id_idx", "picture_id, product_id")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS product_picture_picture_id_idx")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _replace("product_picture_picture_id_idx", "picture_id")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS product_picture_picture_id_product_id_idx")
    _in_turn("ALTER TABLE index_build DROP COLUMN IF EXISTS stamped_by", TRIGGER)


def _replace(name: str, columns: str) -> None:
    """Make an index; what an interrupted try left, which is of no use, goes first."""
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE INDEX CONCURRENTLY {name} ON product_picture ({columns})")


def _in_turn(*parts: str) -> None:
    """Each part in a transaction of its own: who holds one table and waits for the next can meet a
    search that does so the other way round, and PostgreSQL would end one of the two."""
    for part in parts:
        op.execute("SET LOCAL lock_timeout = '2s'")
        op.execute(part)
        with op.get_context().autocommit_block():
            pass
