"""The visible colours of each picture, computed from its thumbnail.

Ingests write them with the picture; `lookalike colours` and the worker compute those of pictures
that have none.
"""

from alembic import op

revision = "0019"
down_revision = "0017"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE IF NOT EXISTS picture_colours (
    picture_id bigint NOT NULL,
    version smallint NOT NULL,
    main smallint NOT NULL,
    main_share smallint NOT NULL,
    shares bytea NOT NULL,
    CONSTRAINT picture_colours_pkey PRIMARY KEY (picture_id),
    CONSTRAINT picture_colours_picture_id_fkey FOREIGN KEY (picture_id) REFERENCES picture (id)
        ON DELETE CASCADE,
    CONSTRAINT picture_colours_shares_check CHECK (octet_length(shares) = 18),
    CONSTRAINT picture_colours_main_check CHECK (main BETWEEN 0 AND 17)
);
CREATE INDEX IF NOT EXISTS picture_colours_main_idx
    ON picture_colours (main, main_share DESC, picture_id);
COMMENT ON TABLE picture_colours IS
    'the visible colours of what each picture shows, computed from its thumbnail';
COMMENT ON COLUMN picture_colours.version IS
    'of the computation; pictures with an older one are computed again';
COMMENT ON COLUMN picture_colours.main IS 'number of the colour with the largest share, from 0';
COMMENT ON COLUMN picture_colours.main_share IS 'its share, 0 to 255';
COMMENT ON COLUMN picture_colours.shares IS
    'share of each basic colour, a byte each, 0 to 255: red, orange, yellow, green, blue,'
    ' light blue, navy, purple, lilac, pink, brown, beige, white, grey, black, teal, burgundy,'
    ' olive; all 0: not known';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TABLE)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    # The next `lookalike migrate` creates the view again.
    op.execute("DROP VIEW IF EXISTS analytics.picture_colours")
    op.execute("DROP TABLE IF EXISTS picture_colours")
