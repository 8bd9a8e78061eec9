"""The oldest code that a database supports, so that the previous version keeps running while
machines are updated one after the other.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Code before this migration does not know the table and refuses every newer schema.
TABLES = """
CREATE TABLE schema_serves (
    code_since text NOT NULL,
    CONSTRAINT schema_serves_pkey PRIMARY KEY (code_since)
);
COMMENT ON TABLE schema_serves IS 'one row: the oldest code that runs on this database';
COMMENT ON COLUMN schema_serves.code_since IS
    'the migration that code is written for; raised by a migration that older code cannot run on';
INSERT INTO schema_serves (code_since) VALUES ('0008');
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TABLES)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("DROP TABLE schema_serves")
