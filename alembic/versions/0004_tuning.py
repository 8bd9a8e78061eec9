"""Filtered searches: the measured crossovers between paths, and the filtered recall of builds."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


TUNING = """
CREATE TABLE tuning (
    model_id integer NOT NULL,
    exact_pictures integer NOT NULL,
    deep_share real NOT NULL,
    figures jsonb NOT NULL DEFAULT '{}'::jsonb,
    measured_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tuning_pkey PRIMARY KEY (model_id),
    CONSTRAINT tuning_model_id_fkey FOREIGN KEY (model_id) REFERENCES model (id) ON DELETE CASCADE,
    CONSTRAINT tuning_exact_pictures_check CHECK (exact_pictures > 0),
    CONSTRAINT tuning_deep_share_check CHECK (deep_share > 0 AND deep_share <= 1)
);
COMMENT ON TABLE tuning IS 'written by `lookalike tune`: which path answers a filtered search';
COMMENT ON COLUMN tuning.exact_pictures IS 'up to so many pictures pass: compare them all in SQL';
COMMENT ON COLUMN tuning.deep_share IS
    'from this share of the products (0 to 1): look deeper into the index, filter afterwards';
COMMENT ON COLUMN tuning.figures IS 'milliseconds measured, by path and number of pictures';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TUNING)
    op.execute("ALTER TABLE index_build ADD COLUMN recall_filtered real")


def downgrade() -> None:
    _in_turn(
        "ALTER TABLE index_build DROP COLUMN IF EXISTS recall_filtered",
        "DROP TABLE IF EXISTS tuning",
    )


def _in_turn(*parts: str) -> None:
    """Run each statement in its own transaction. One transaction that locks several tables could
    deadlock with a search that locks them in another order."""
    for part in parts:
        op.execute("SET LOCAL lock_timeout = '2s'")
        op.execute(part)
        with op.get_context().autocommit_block():
            pass
