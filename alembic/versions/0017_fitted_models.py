"""The maps of models that were fitted to a catalogue's own pairs, for all processes to load."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE IF NOT EXISTS model_projection (
    model_id integer NOT NULL,
    base_name text NOT NULL,
    base_revision text NOT NULL,
    base_source text,
    base_fingerprint text NOT NULL,
    weights bytea NOT NULL,
    provenance jsonb NOT NULL,
    fitted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_projection_pkey PRIMARY KEY (model_id),
    CONSTRAINT model_projection_model_id_fkey FOREIGN KEY (model_id) REFERENCES model (id)
        ON DELETE CASCADE
);
COMMENT ON TABLE model_projection IS
    'models that `lookalike model fit` made: another model, followed by a linear map';
COMMENT ON COLUMN model_projection.base_source IS
    'what the encoder of the other model is loaded by; null: its name';
COMMENT ON COLUMN model_projection.weights IS
    'matrix of dim x dim numbers, float32, little-endian, by rows; vectors are multiplied from the'
    ' left';
COMMENT ON COLUMN model_projection.provenance IS
    'what it was fitted from, and what that gained, cross-fitted';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TABLE)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("DROP TABLE IF EXISTS model_projection")
