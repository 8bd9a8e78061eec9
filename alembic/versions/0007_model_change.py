"""Several models at the same time: which are maintained, where they are loaded from, and the
history of the active one.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE model
    ADD COLUMN maintained boolean NOT NULL DEFAULT false,
    ADD COLUMN source text;
COMMENT ON COLUMN model.maintained IS
    'new pictures get an embedding under this model too; the active model always is';
COMMENT ON COLUMN model.source IS
    'what the encoder is loaded by: a hub name or a folder; null: its name';
UPDATE model SET maintained = true WHERE active;

CREATE TABLE model_change (
    id bigint GENERATED ALWAYS AS IDENTITY,
    former_id integer,
    active_id integer,
    former_name text,
    active_name text NOT NULL,
    forced text,
    changed_by text NOT NULL DEFAULT session_user,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_change_pkey PRIMARY KEY (id),
    CONSTRAINT model_change_former_id_fkey
        FOREIGN KEY (former_id) REFERENCES model (id) ON DELETE SET NULL,
    CONSTRAINT model_change_active_id_fkey
        FOREIGN KEY (active_id) REFERENCES model (id) ON DELETE SET NULL
);
COMMENT ON TABLE model_change IS 'each change of the active model';
COMMENT ON COLUMN model_change.forced IS
    'why it was activated without full coverage or an index; null: it had both';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TABLES)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("DROP TABLE model_change")
    op.execute("ALTER TABLE model DROP COLUMN maintained, DROP COLUMN source")
