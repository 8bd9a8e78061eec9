"""The catalogue: products, pictures, models, embeddings with their stamp, builds, ingests."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


CATALOGUE = """
CREATE TABLE product (
    id bigint GENERATED ALWAYS AS IDENTITY,
    sku text NOT NULL,
    title text NOT NULL DEFAULT '',
    brand text,
    category text,
    colour text,
    year integer,
    price numeric(14, 4),
    currency text,
    attributes jsonb NOT NULL DEFAULT '{}'::jsonb,
    identity_key text NOT NULL DEFAULT '',
    words tsvector GENERATED ALWAYS AS (
        -- Without accents, which the query leaves out too; a tsvector holds no more than 1 MB.
        to_tsvector('simple'::regconfig, regexp_replace(normalize(left(
            coalesce(title, '') || ' ' || coalesce(brand, '') || ' ' || coalesce(category, '')
            || ' ' || coalesce(colour, ''), 10000), NFKD), '[\\u0300-\\u036F]', '', 'g'))
    ) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT product_pkey PRIMARY KEY (id),
    CONSTRAINT product_sku_key UNIQUE (sku),
    CONSTRAINT product_sku_check CHECK (sku <> ''),
    CONSTRAINT product_price_check CHECK (price >= 0),
    CONSTRAINT product_attributes_check CHECK (jsonb_typeof(attributes) = 'object')
);
CREATE INDEX product_brand_idx ON product (brand);
CREATE INDEX product_category_idx ON product (category);
CREATE INDEX product_colour_idx ON product (colour);
CREATE INDEX product_year_idx ON product (year);
CREATE INDEX product_price_idx ON product (price);
CREATE INDEX product_identity_key_idx ON product (identity_key);
CREATE INDEX product_attributes_idx ON product USING gin (attributes);
CREATE INDEX product_words_idx ON product USING gin (words);

CREATE TABLE picture (
    id bigint GENERATED ALWAYS AS IDENTITY,
    sha256 bytea NOT NULL,
    width integer NOT NULL,
    height integer NOT NULL,
    thumbnail bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT picture_pkey PRIMARY KEY (id),
    CONSTRAINT picture_sha256_key UNIQUE (sha256),
    CONSTRAINT picture_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT picture_size_check CHECK (width > 0 AND height > 0),
    CONSTRAINT picture_thumbnail_check CHECK (octet_length(thumbnail) <= 20480)
);

CREATE TABLE product_picture (
    product_id bigint NOT NULL,
    picture_id bigint NOT NULL,
    position integer NOT NULL,
    uri text NOT NULL,
    CONSTRAINT product_picture_pkey PRIMARY KEY (product_id, picture_id),
    CONSTRAINT product_picture_product_id_fkey
        FOREIGN KEY (product_id) REFERENCES product (id) ON DELETE CASCADE,
    CONSTRAINT product_picture_picture_id_fkey FOREIGN KEY (picture_id) REFERENCES picture (id),
    CONSTRAINT product_picture_position_check CHECK (position >= 0)
);
CREATE INDEX product_picture_picture_id_idx ON product_picture (picture_id);

CREATE TABLE duplicate_verdict (
    sku_a text NOT NULL,
    sku_b text NOT NULL,
    same boolean NOT NULL,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT duplicate_verdict_pkey PRIMARY KEY (sku_a, sku_b),
    CONSTRAINT duplicate_verdict_ordered_check CHECK (sku_a COLLATE "C" < sku_b COLLATE "C")
);
"""

EMBEDDINGS = """
CREATE TABLE model (
    id integer GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    revision text NOT NULL,
    dim integer NOT NULL,
    fingerprint text NOT NULL,
    active boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_pkey PRIMARY KEY (id),
    CONSTRAINT model_fingerprint_key UNIQUE (fingerprint),
    CONSTRAINT model_dim_check CHECK (dim BETWEEN 1 AND 4000)
);
CREATE UNIQUE INDEX model_active_idx ON model (active) WHERE active;

CREATE TABLE embedding (
    model_id integer NOT NULL,
    picture_id bigint NOT NULL,
    vec halfvec NOT NULL,
    changed_in xid8 NOT NULL,
    -- picture_id first: deleting a picture looks its embeddings up by it alone.
    CONSTRAINT embedding_pkey PRIMARY KEY (picture_id, model_id),
    CONSTRAINT embedding_model_id_fkey FOREIGN KEY (model_id) REFERENCES model (id),
    CONSTRAINT embedding_picture_id_fkey
        FOREIGN KEY (picture_id) REFERENCES picture (id) ON DELETE CASCADE
) PARTITION BY LIST (model_id);
ALTER TABLE ONLY embedding ALTER COLUMN vec SET STORAGE PLAIN;
CREATE INDEX embedding_changed_in_idx ON embedding (changed_in);
COMMENT ON COLUMN embedding.vec IS 'unit-length embedding, float16; compare with <=> (cosine)';
COMMENT ON COLUMN embedding.changed_in IS
    'transaction that last wrote this row; set by a trigger, whatever the statement says';

CREATE TABLE index_build (
    id bigint GENERATED ALWAYS AS IDENTITY,
    model_id integer NOT NULL,
    cluster text NOT NULL,
    snapshot pg_snapshot,
    kind text,
    parameters jsonb NOT NULL DEFAULT '{}'::jsonb,
    rows bigint NOT NULL DEFAULT 0,
    sha256 text,
    size bigint NOT NULL DEFAULT 0,
    recall_at_10 real,
    recall_sample integer,
    seconds double precision,
    state text NOT NULL DEFAULT 'building',
    reason text,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT index_build_pkey PRIMARY KEY (id),
    CONSTRAINT index_build_model_id_fkey
        FOREIGN KEY (model_id) REFERENCES model (id) ON DELETE CASCADE,
    CONSTRAINT index_build_state_check
        CHECK (state IN ('building', 'published', 'rejected', 'retired')),
    CONSTRAINT index_build_published_check
        CHECK (state <> 'published' OR (snapshot IS NOT NULL AND sha256 IS NOT NULL))
);
CREATE INDEX index_build_model_id_state_idx ON index_build (model_id, state);
"""

# The trigger must stamp every write: INSERT, UPDATE, COPY, ON CONFLICT, MERGE, a restored dump and
# logical replication (the last two carry old transaction ids, hence ENABLE ALWAYS).
STAMP = """
CREATE FUNCTION stamp_embedding() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.changed_in := pg_current_xact_id();
    RETURN NEW;
END $$;
CREATE TRIGGER embedding_stamp BEFORE INSERT OR UPDATE ON embedding
    FOR EACH ROW EXECUTE FUNCTION stamp_embedding();
ALTER TABLE embedding ENABLE ALWAYS TRIGGER embedding_stamp;
"""

# The partition gets its constraints and indexes before it is attached. Attaching needs a weaker
# lock on `embedding` than creating a partition, so searches continue.
REGISTER = """
CREATE FUNCTION register_model(name text, revision text, dim integer, fingerprint text)
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
    EXECUTE format('CREATE INDEX %I ON %I USING hnsw ((vec::halfvec(%s)) halfvec_cosine_ops)',
        partition || '_vec_idx', partition, register_model.dim);
    EXECUTE format('ALTER TABLE embedding ATTACH PARTITION %I FOR VALUES IN (%s)',
        partition, registered);
    RETURN registered;
END $$;
COMMENT ON FUNCTION register_model(text, text, integer, text) IS
    'Records an encoder and makes the partition its embeddings live in; returns the model''s id.'
    ' The same fingerprint gets the same id again.';
"""

INGESTS = """
CREATE TABLE ingest_run (
    id bigint GENERATED ALWAYS AS IDENTITY,
    source text NOT NULL,
    model_id integer,
    state text NOT NULL DEFAULT 'running',
    report jsonb NOT NULL DEFAULT '{}'::jsonb,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT ingest_run_pkey PRIMARY KEY (id),
    CONSTRAINT ingest_run_model_id_fkey
        FOREIGN KEY (model_id) REFERENCES model (id) ON DELETE SET NULL,
    CONSTRAINT ingest_run_state_check CHECK (state IN ('running', 'finished', 'failed'))
);

CREATE TABLE ingest_reject (
    id bigint GENERATED ALWAYS AS IDENTITY,
    run_id bigint NOT NULL,
    line bigint,
    sku text,
    image text,
    reason text NOT NULL,
    CONSTRAINT ingest_reject_pkey PRIMARY KEY (id),
    CONSTRAINT ingest_reject_run_id_fkey
        FOREIGN KEY (run_id) REFERENCES ingest_run (id) ON DELETE CASCADE
);
CREATE INDEX ingest_reject_run_id_idx ON ingest_reject (run_id);
"""


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    for part in (CATALOGUE, EMBEDDINGS, STAMP, REGISTER, INGESTS):
        op.execute(part)


def downgrade() -> None:
    # The views of `sql/` depend on these tables; the next `lookalike migrate` creates them again.
    op.execute("DROP SCHEMA IF EXISTS analytics CASCADE")
    op.execute("DROP FUNCTION register_model(text, text, integer, text)")
    op.execute("DROP TABLE ingest_reject, ingest_run, index_build, embedding, model CASCADE")
    op.execute("DROP FUNCTION stamp_embedding()")
    op.execute("DROP TABLE duplicate_verdict, product_picture, picture, product")
