"""An index-only lookup of the products of a picture, no notifying trigger, and stamps in builds.

A transaction that sends a notification cannot be prepared (PREPARE TRANSACTION), so a trigger on
`embedding` that does so prevents all users from it. Lookalike's own writers notify the workers
instead; a worker sees the changes of other clients when it polls. Builds record which trigger
stamped the rows they read.
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


# IF EXISTS everywhere: creating the index takes long, and an interrupted migration runs again.
def upgrade() -> None:
    _in_turn(
        # Some databases have this column from an earlier form of 0002.
        "ALTER TABLE index_build ADD COLUMN IF NOT EXISTS stamped_by text",
        "DROP TRIGGER IF EXISTS embedding_changed ON embedding",
        # squawk: no client calls the function of a trigger.
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
    """Create an index, after dropping the invalid one that an interrupted run may have left."""
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE INDEX CONCURRENTLY {name} ON product_picture ({columns})")


def _in_turn(*parts: str) -> None:
    """Run each statement in its own transaction. One transaction that locks several tables could
    deadlock with a search that locks them in another order."""
    for part in parts:
        op.execute("SET LOCAL lock_timeout = '2s'")
        op.execute(part)
        with op.get_context().autocommit_block():
            pass
