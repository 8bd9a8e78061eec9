"""Searches of the HTTP API and what people did with their results, by day, and photos kept with
permission.

The partitions of a day are no part of the migration: `add_search_partitions` creates them when they
are needed. It runs with the rights of the owner of the tables, because the serving role may not
create any.
"""

from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None

COLUMN = "ALTER TABLE api_key ADD COLUMN IF NOT EXISTS records text NOT NULL DEFAULT 'nothing'"

# The check is dropped first, so that an interrupted migration can be repeated.
CHECK = """
-- squawk-ignore ban-drop-constraint
ALTER TABLE api_key DROP CONSTRAINT IF EXISTS api_key_records_check;
ALTER TABLE api_key ADD CONSTRAINT api_key_records_check
    CHECK (records IN ('nothing', 'results', 'queries')) NOT VALID;
COMMENT ON COLUMN api_key.records IS
    'what is recorded of searches with the key: nothing, what was shown, or the query too';
"""

TABLES = """
CREATE TABLE IF NOT EXISTS search_request (
    query_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    k integer NOT NULL,
    skipped integer NOT NULL,
    shown text[] NOT NULL,
    folded text[] NOT NULL,
    model text NOT NULL,
    path text NOT NULL,
    words text,
    sku text,
    photo_id text,
    filters text[],
    CONSTRAINT search_request_pkey PRIMARY KEY (query_id, at)
) PARTITION BY RANGE (at);
CREATE INDEX IF NOT EXISTS search_request_photo_id_idx ON search_request (photo_id)
    WHERE photo_id IS NOT NULL;
COMMENT ON TABLE search_request IS
    'searches of the HTTP API with keys that record them; a partition a day';
COMMENT ON COLUMN search_request.kind IS 'what was searched by, such as photo or text';
COMMENT ON COLUMN search_request.skipped IS 'products on the pages before this one';
COMMENT ON COLUMN search_request.shown IS 'skus of the matches, best first';
COMMENT ON COLUMN search_request.folded IS 'skus that were collapsed into these matches';
COMMENT ON COLUMN search_request.words IS
    'words that were searched for; null, like the next three: none, or not to be kept';
COMMENT ON COLUMN search_request.filters IS 'conditions of the search';

CREATE TABLE IF NOT EXISTS search_event (
    query_id text NOT NULL,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT now(),
    action_name text NOT NULL,
    sku text,
    position integer,
    client_id text,
    session_id text,
    application text,
    occurred_at timestamptz,
    CONSTRAINT search_event_pkey PRIMARY KEY (query_id, id, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE search_event IS
    'what people did with results of searches, as their clients tell; a partition a day';
COMMENT ON COLUMN search_event.at IS 'when it was received';
COMMENT ON COLUMN search_event.sku IS
    'the product (object_id); it may not exist any more, or never have';
COMMENT ON COLUMN search_event.position IS 'place on the page, as the client tells';
COMMENT ON COLUMN search_event.occurred_at IS 'when it happened by the clock of the client';

CREATE TABLE IF NOT EXISTS kept_photo (
    id text NOT NULL,
    preview bytea NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT kept_photo_pkey PRIMARY KEY (id)
);
CREATE INDEX IF NOT EXISTS kept_photo_kept_at_idx ON kept_photo (kept_at);
COMMENT ON TABLE kept_photo IS
    'previews of photos that were searched with, kept to measure quality where the key allows it';
COMMENT ON COLUMN kept_photo.preview IS 'JPEG';
"""

# A table is attached rather than created as a partition: this lets writers go on. Only who may
# write events may call these.
FUNCTIONS = """
CREATE OR REPLACE FUNCTION add_search_partitions(ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET lock_timeout = '2s'
SET timezone = 'UTC'
SET datestyle = 'ISO' AS $$
DECLARE
    parent text;
    day date;
    part text;
    added integer := 0;
BEGIN
    IF NOT has_table_privilege(session_user, 'public.search_event', 'INSERT') THEN
        RAISE insufficient_privilege
            USING MESSAGE = format('%s may not write events', session_user);
    END IF;
    FOREACH parent IN ARRAY ARRAY['search_request', 'search_event'] LOOP
        EXECUTE format('LOCK TABLE public.%I IN SHARE UPDATE EXCLUSIVE MODE', parent);
        -- Who may call this may not fill the catalogue of the database with tables.
        FOR day IN SELECT current_date + n FROM generate_series(0, least(ahead, 31)) AS n LOOP
            part := parent || to_char(day, '_YYYYMMDD');
            CONTINUE WHEN to_regclass('public.' || part) IS NOT NULL;
            EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS'
                ' INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING STORAGE)', part, parent);
            EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I'
                ' FOR VALUES FROM (%L) TO (%L)', parent, part, day::timestamptz,
                (day + 1)::timestamptz);
            added := added + 1;
        END LOOP;
    END LOOP;
    RETURN added;
END $$;
COMMENT ON FUNCTION add_search_partitions(integer) IS
    'creates the missing partitions of searches and events, of today and some days ahead';

CREATE OR REPLACE FUNCTION drop_search_partitions(days double precision) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET lock_timeout = '2s'
SET timezone = 'UTC' AS $$
DECLARE
    part regclass;
    dropped integer := 0;
BEGIN
    IF NOT has_table_privilege(session_user, 'public.search_event', 'DELETE') THEN
        RAISE insufficient_privilege
            USING MESSAGE = format('%s may not delete events', session_user);
    END IF;
    FOR part IN
        SELECT c.oid FROM pg_inherits AS tree JOIN pg_class AS c ON c.oid = tree.inhrelid
        WHERE tree.inhparent IN ('public.search_request'::regclass, 'public.search_event'::regclass)
            AND c.relname ~ '_[0-9]{8}$'
            AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1
                <= now() - days * interval '1 day'
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE %s', part);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
COMMENT ON FUNCTION drop_search_partitions(double precision) IS
    'drops the partitions of searches and events that hold only older ones than so many days';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(COLUMN)
    op.execute(CHECK)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE api_key VALIDATE CONSTRAINT api_key_records_check")
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(TABLES)
    op.execute(FUNCTIONS)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    # The next `lookalike migrate` creates the views again.
    op.execute("DROP VIEW IF EXISTS analytics.click_through")
    op.execute("DROP VIEW IF EXISTS analytics.searches_without_a_click")
    op.execute("DROP VIEW IF EXISTS analytics.clicks")
    op.execute("DROP FUNCTION IF EXISTS add_search_partitions(integer)")
    op.execute("DROP FUNCTION IF EXISTS drop_search_partitions(double precision)")
    for table in ("search_request", "search_event", "kept_photo"):
        op.execute(f"DROP TABLE IF EXISTS {table}")
        with op.get_context().autocommit_block():
            pass  # one table a transaction is locked against readers
        op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("ALTER TABLE api_key DROP COLUMN IF EXISTS records")
