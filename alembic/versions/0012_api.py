"""What the HTTP API keeps: photos to search with for a while, keys, and the secret of its cursors.

All processes of the API read it here, so that any of them answers.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE IF NOT EXISTS query_photo (
    id text NOT NULL,
    fingerprint text NOT NULL,
    vector bytea NOT NULL,
    objects jsonb,
    preview bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT query_photo_pkey PRIMARY KEY (id)
);
CREATE INDEX IF NOT EXISTS query_photo_expires_at_idx ON query_photo (expires_at);
COMMENT ON TABLE query_photo IS
    'photos that were sent to search with, without the photo: vector, objects and a preview';
COMMENT ON COLUMN query_photo.fingerprint IS 'of the encoder that the vectors are from';
COMMENT ON COLUMN query_photo.vector IS 'unit vector of the whole photo, float32, little-endian';
COMMENT ON COLUMN query_photo.objects IS
    'what was found in the photo; null: the encoder finds no objects';
COMMENT ON COLUMN query_photo.preview IS 'JPEG';

CREATE TABLE IF NOT EXISTS api_key (
    id text NOT NULL,
    name text NOT NULL,
    scope text NOT NULL,
    digest bytea NOT NULL,
    rate real,
    origins text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT api_key_pkey PRIMARY KEY (id),
    CONSTRAINT api_key_scope_check CHECK (scope IN ('search', 'write', 'admin')),
    CONSTRAINT api_key_digest_check CHECK (octet_length(digest) = 32),
    CONSTRAINT api_key_rate_check CHECK (rate > 0)
);
COMMENT ON TABLE api_key IS 'keys of the HTTP API; the key itself is not kept';
COMMENT ON COLUMN api_key.digest IS 'sha256 of the 256 random bits of the key';
COMMENT ON COLUMN api_key.rate IS 'requests a second, in each process; null: no limit';
COMMENT ON COLUMN api_key.origins IS 'origins whose pages may use the key in a browser';

CREATE TABLE IF NOT EXISTS api_secret (
    name text NOT NULL,
    secret bytea NOT NULL,
    CONSTRAINT api_secret_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE api_secret IS 'secrets that all processes of the HTTP API share, by their use';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TABLES)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("DROP TABLE IF EXISTS query_photo, api_key, api_secret")
