"""A new model's partition gets no index of its vectors: it is built once there are rows.

An HNSW index costs each write several times what all else does. `lookalike migrate` and the worker
replace those of the models that exist by IVFFlat indexes.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# As in 0001, but for the index.
REGISTER = """
CREATE OR REPLACE FUNCTION register_model(name text, revision text, dim integer, fingerprint text)
RETURNS integer LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    registered integer;
    partition text;
BEGIN
    -- Two hosts that register the same encoder take turns.
    PERFORM pg_advisory_xact_lock(7305804004);
    INSERT INTO model (name, revision, dim, fingerprint)
    VALUES (register_model.name, register_model.revision, register_model.dim,
            register_model.fingerprint)
    ON CONFLICT (fingerprint) DO NOTHING
    RETURNING id INTO registered;
    IF registered IS NULL THEN
        SELECT id INTO STRICT registered FROM model
        WHERE model.fingerprint = register_model.fingerprint;
        RETURN registered;
    END IF;
    partition := 'embedding_m' || registered;
    EXECUTE format('CREATE TABLE %I (LIKE embedding'
        ' INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)',
        partition);
    EXECUTE format('ALTER TABLE %1$I'
        ' ALTER COLUMN model_id SET DEFAULT %2$s,'
        ' ADD CONSTRAINT %3$I CHECK (model_id = %2$s),'
        ' ADD CONSTRAINT %4$I CHECK (vector_dims(vec) = %5$s),'
        ' ADD CONSTRAINT %6$I CHECK (l2_norm(vec) BETWEEN 0.99 AND 1.01)',
        partition, registered, partition || '_model_id_check', partition || '_dim_check',
        register_model.dim, partition || '_unit_check');
{index}    EXECUTE format('ALTER TABLE embedding ATTACH PARTITION %I FOR VALUES IN (%s)',
        partition, registered);
    RETURN registered;
END $$;
"""

INDEX = """\
    EXECUTE format('CREATE INDEX %I ON %I USING hnsw ((vec::halfvec(%s)) halfvec_cosine_ops)',
        partition || '_vec_idx', partition, register_model.dim);
"""

# One lock at a time, and none of them held while the next is waited for.
DROP = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.relname FROM pg_class AS c JOIN pg_index AS i ON i.indexrelid = c.oid
        WHERE i.indrelid IN (SELECT inhrelid FROM pg_inherits
                WHERE inhparent = 'embedding'::regclass)
            AND c.relname ~ '^embedding_m[0-9]+_ivf[12]_idx$'
    LOOP
        SET LOCAL lock_timeout = '2s';
        EXECUTE format('DROP INDEX %I', name);
        COMMIT;
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(REGISTER.replace("{index}", ""))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    # Code before this migration builds its HNSW indexes where they are missing.
    op.execute(REGISTER.replace("{index}", INDEX))
    with op.get_context().autocommit_block():
        op.execute(DROP)
