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


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    # Some databases have this column from an earlier form of 0002.
    op.execute("ALTER TABLE index_build ADD COLUMN IF NOT EXISTS stamped_by text")
    # IF EXISTS: an index takes long, and who was interrupted there begins again from here.
    op.execute("DROP TRIGGER IF EXISTS embedding_changed ON embedding")
    op.execute("DROP FUNCTION IF EXISTS tell_embedding_changed()")
    with op.get_context().autocommit_block():
        _replace("product_picture_picture_id_product_id_idx", "picture_id, product_id")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS product_picture_picture_id_idx")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _replace("product_picture_picture_id_idx", "picture_id")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS product_picture_picture_id_product_id_idx")
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("ALTER TABLE index_build DROP COLUMN IF EXISTS stamped_by")
    op.execute(
        """CREATE OR REPLACE FUNCTION tell_embedding_changed() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            PERFORM pg_notify('lookalike_changed', '');
            RETURN NULL;
        END $$"""
    )
    op.execute(
        """CREATE OR REPLACE TRIGGER embedding_changed AFTER INSERT OR UPDATE OR DELETE ON embedding
        FOR EACH STATEMENT EXECUTE FUNCTION tell_embedding_changed()"""
    )


def _replace(name: str, columns: str) -> None:
    """Make an index; what an interrupted try left, which is of no use, goes first."""
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE INDEX CONCURRENTLY {name} ON product_picture ({columns})")
