"""Index files in chunks, a sample of real queries, and a notification of every change."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


TABLES = """
ALTER TABLE index_build ADD COLUMN recall_at_50 real;

CREATE TABLE index_chunk (
    build_id bigint NOT NULL,
    number integer NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT index_chunk_pkey PRIMARY KEY (build_id, number),
    CONSTRAINT index_chunk_build_id_fkey
        FOREIGN KEY (build_id) REFERENCES index_build (id) ON DELETE CASCADE
);
-- FAISS files do not compress; trying would only cost time.
ALTER TABLE index_chunk ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE query_sample (
    id bigint GENERATED ALWAYS AS IDENTITY,
    model_id integer NOT NULL,
    vec halfvec NOT NULL,
    CONSTRAINT query_sample_pkey PRIMARY KEY (id),
    CONSTRAINT query_sample_model_id_fkey
        FOREIGN KEY (model_id) REFERENCES model (id) ON DELETE CASCADE
);
CREATE INDEX query_sample_model_id_idx ON query_sample (model_id, id);
COMMENT ON TABLE query_sample IS
    'vectors of recent searches, without who asked or when; the newest few hundred a model';
"""

# One notification per transaction: PostgreSQL merges equal ones. Workers that miss it poll.
NOTIFY = """
CREATE FUNCTION tell_embedding_changed() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('lookalike_changed', '');
    RETURN NULL;
END $$;
CREATE TRIGGER embedding_changed AFTER INSERT OR UPDATE OR DELETE ON embedding
    FOR EACH STATEMENT EXECUTE FUNCTION tell_embedding_changed();
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TABLES)
    op.execute(NOTIFY)


def downgrade() -> None:
    _in_turn(
        "DROP TRIGGER IF EXISTS embedding_changed ON embedding",
        "DROP FUNCTION IF EXISTS tell_embedding_changed()",
        "DROP TABLE IF EXISTS query_sample",
        "DROP TABLE IF EXISTS index_chunk",
        "ALTER TABLE index_build DROP COLUMN IF EXISTS recall_at_50",
    )


def _in_turn(*parts: str) -> None:
    """Run each statement in its own transaction. One transaction that locks several tables could
    deadlock with a search that locks them in another order."""
    for part in parts:
        op.execute("SET LOCAL lock_timeout = '2s'")
        op.execute(part)
        with op.get_context().autocommit_block():
            pass
