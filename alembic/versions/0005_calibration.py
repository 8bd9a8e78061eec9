"""The meaning of distances under a model: the cut-offs that `lookalike calibrate` fits."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


TABLES = """
CREATE TABLE calibration (
    model_id integer NOT NULL,
    category text NOT NULL DEFAULT '',
    same_photo_distance real,
    same_photo_pairs integer NOT NULL DEFAULT 0,
    same_photo_others integer NOT NULL DEFAULT 0,
    same_product_distance real,
    same_product_pairs integer NOT NULL DEFAULT 0,
    same_product_others integer NOT NULL DEFAULT 0,
    similar_distance real,
    similar_pairs integer NOT NULL DEFAULT 0,
    similar_others integer NOT NULL DEFAULT 0,
    calibrated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT calibration_pkey PRIMARY KEY (model_id, category),
    CONSTRAINT calibration_model_id_fkey
        FOREIGN KEY (model_id) REFERENCES model (id) ON DELETE CASCADE,
    CONSTRAINT calibration_range_check CHECK (same_photo_distance BETWEEN 0 AND 2
        AND same_product_distance BETWEEN 0 AND 2 AND similar_distance BETWEEN 0 AND 2),
    CONSTRAINT calibration_increasing_check CHECK (
        same_photo_distance <= same_product_distance
        AND same_product_distance <= similar_distance AND same_photo_distance <= similar_distance),
    CONSTRAINT calibration_pairs_check CHECK (least(same_photo_pairs, same_photo_others,
        same_product_pairs, same_product_others, similar_pairs, similar_others) >= 0)
);
COMMENT ON TABLE calibration IS
    'what a cosine distance means under a model, as `lookalike calibrate` fitted it';
COMMENT ON COLUMN calibration.category IS
    'products of this category only; empty: the whole catalogue';
COMMENT ON COLUMN calibration.same_photo_distance IS
    'cosine distance (0 to 2) up to which two pictures are the same photo; null: not known';
COMMENT ON COLUMN calibration.same_product_distance IS
    'cosine distance (0 to 2) up to which two pictures show the same product; null: not known';
COMMENT ON COLUMN calibration.similar_distance IS
    'cosine distance (0 to 2) up to which two pictures show similar products; null: not known';
COMMENT ON COLUMN calibration.same_photo_pairs IS 'number of pairs that are the same photo';
COMMENT ON COLUMN calibration.same_photo_others IS 'number of pairs that are not';
COMMENT ON COLUMN calibration.same_product_pairs IS 'number of pairs of the same product';
COMMENT ON COLUMN calibration.same_product_others IS 'number of pairs that are not';
COMMENT ON COLUMN calibration.similar_pairs IS 'number of pairs of one category';
COMMENT ON COLUMN calibration.similar_others IS 'number of pairs of two categories';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TABLES)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("DROP TABLE calibration")
