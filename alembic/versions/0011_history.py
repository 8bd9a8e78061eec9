"""What each run changed, kept for a while so that the run can be undone.

Pictures are named by their sha256: after they were deleted, restored rows get new ids.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE ingest_run
    ADD COLUMN IF NOT EXISTS kind text NOT NULL DEFAULT 'ingest',
    ADD COLUMN IF NOT EXISTS undoes bigint,
    ADD COLUMN IF NOT EXISTS history_bytes bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ingest_run.kind IS 'ingest, delete or undo';
COMMENT ON COLUMN ingest_run.undoes IS 'the run that an undo takes back';
COMMENT ON COLUMN ingest_run.history_bytes IS
    'approximate size of what is kept to undo the run; 0: it cannot be undone';
"""

TABLES = """
CREATE TABLE IF NOT EXISTS product_history (
    id bigint GENERATED ALWAYS AS IDENTITY,
    run_id bigint NOT NULL,
    sku text NOT NULL,
    before jsonb,
    after bytea,
    CONSTRAINT product_history_pkey PRIMARY KEY (run_id, id),
    CONSTRAINT product_history_run_id_fkey
        FOREIGN KEY (run_id) REFERENCES ingest_run (id) ON DELETE CASCADE
);
COMMENT ON TABLE product_history IS 'the products that a run added, changed or deleted';
COMMENT ON COLUMN product_history.before IS
    'the columns that were changed, as they were, or all of a deleted product; null: added';
COMMENT ON COLUMN product_history.after IS
    'sha256 of the product as the run left it; null: deleted';

CREATE TABLE IF NOT EXISTS picture_history (
    run_id bigint NOT NULL,
    sha256 bytea NOT NULL,
    width integer NOT NULL,
    height integer NOT NULL,
    thumbnail bytea NOT NULL,
    CONSTRAINT picture_history_pkey PRIMARY KEY (run_id, sha256),
    CONSTRAINT picture_history_run_id_fkey
        FOREIGN KEY (run_id) REFERENCES ingest_run (id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS picture_history_sha256_idx ON picture_history (sha256);
COMMENT ON TABLE picture_history IS 'pictures that a run deleted, because no product showed them';

CREATE TABLE IF NOT EXISTS embedding_history (
    run_id bigint NOT NULL,
    sha256 bytea NOT NULL,
    model_id integer NOT NULL,
    vec halfvec NOT NULL,
    CONSTRAINT embedding_history_pkey PRIMARY KEY (run_id, sha256, model_id),
    CONSTRAINT embedding_history_run_id_sha256_fkey
        FOREIGN KEY (run_id, sha256) REFERENCES picture_history (run_id, sha256)
        ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS embedding_history_sha256_idx ON embedding_history (sha256);
COMMENT ON TABLE embedding_history IS 'embeddings of the pictures in picture_history';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(COLUMNS)
    with op.get_context().autocommit_block():
        pass  # one table a transaction is locked against readers
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TABLES)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    # The next `lookalike migrate` creates the view again.
    op.execute("DROP VIEW IF EXISTS analytics.loads")
    op.execute("DROP TABLE IF EXISTS embedding_history, picture_history, product_history")
    with op.get_context().autocommit_block():
        pass
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("""
        ALTER TABLE ingest_run DROP COLUMN IF EXISTS kind, DROP COLUMN IF EXISTS undoes,
            DROP COLUMN IF EXISTS history_bytes
    """)
