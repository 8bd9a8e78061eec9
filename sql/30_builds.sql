-- Views of the index builds: how they were built, and how much the table has changed since.

CREATE OR REPLACE FUNCTION analytics.build_in_use() RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT max(b.id) FROM index_build AS b JOIN model AS m ON m.id = b.model_id AND m.active
    WHERE b.state = 'published'
        AND b.cluster = (SELECT system_identifier FROM pg_control_system()) || '/' || (
            SELECT oid FROM pg_database WHERE datname = current_database())
        AND b.stamped_by = (
            SELECT concat_ws('/', stamp.oid, stamp.xmin, part.relfilenode, stamping.xmin)
            FROM pg_inherits AS tree JOIN pg_class AS part ON part.oid = tree.inhrelid
            JOIN pg_trigger AS stamp ON stamp.tgrelid = part.oid
                AND stamp.tgfoid = to_regprocedure('stamp_embedding()') AND stamp.tgenabled = 'A'
            JOIN pg_proc AS stamping ON stamping.oid = stamp.tgfoid
            WHERE tree.inhparent = 'embedding'::regclass AND part.relname = 'embedding_m' || m.id)
$$;
COMMENT ON FUNCTION analytics.build_in_use() IS
    'the id of the newest build searches may use, as they choose it; null: they do without one';

CREATE OR REPLACE FUNCTION analytics.changes_since(build bigint) RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    model integer;
    seen pg_snapshot;
BEGIN
    SELECT b.model_id, b.snapshot INTO model, seen FROM index_build AS b WHERE b.id = build;
    -- Both halves of "not visible to the snapshot", written so that the B-tree on changed_in is
    -- used.
    RETURN (
        SELECT count(*) FROM embedding AS e
        WHERE e.model_id = model AND (
            e.changed_in >= pg_snapshot_xmax(seen)
            OR e.changed_in = ANY(ARRAY(SELECT pg_snapshot_xip(seen)))));
END $$;
COMMENT ON FUNCTION analytics.changes_since(bigint) IS
    'how many embeddings of its model were written since the snapshot a build read; only for builds'
    ' of this very database, not of one it was restored from';

CREATE OR REPLACE VIEW analytics.index_builds AS
SELECT
    b.id,
    m.name AS model,
    b.state,
    b.kind,
    b.rows,
    b.size AS bytes,
    b.recall_at_10,
    b.seconds,
    b.reason,
    b.started_at,
    b.finished_at
FROM public.index_build AS b
JOIN public.model AS m ON m.id = b.model_id;
COMMENT ON VIEW analytics.index_builds IS
    'every FAISS index built; recall_at_10 is between 0 and 1, seconds and bytes are of the build';
COMMENT ON COLUMN analytics.index_builds.id IS 'number of the build';
COMMENT ON COLUMN analytics.index_builds.model IS 'name of the model it is of';
COMMENT ON COLUMN analytics.index_builds.state IS 'building, published, rejected or retired';
COMMENT ON COLUMN analytics.index_builds.kind IS
    'flat (all vectors compared) or ivf (the nearest lists of them); null: not decided';
COMMENT ON COLUMN analytics.index_builds.rows IS 'embeddings in it';
COMMENT ON COLUMN analytics.index_builds.bytes IS 'size of its file';
COMMENT ON COLUMN analytics.index_builds.recall_at_10 IS
    'share of the exact ten nearest that it finds, 0 to 1; null: not measured';
COMMENT ON COLUMN analytics.index_builds.seconds IS 'how long it took; null: not finished';
COMMENT ON COLUMN analytics.index_builds.reason IS 'why it was rejected or retired';
COMMENT ON COLUMN analytics.index_builds.started_at IS 'when it began';
COMMENT ON COLUMN analytics.index_builds.finished_at IS 'when it ended; null: it has not';

CREATE OR REPLACE VIEW analytics.freshness AS
WITH used AS (
    SELECT m.id, m.name, b.id AS build, b.rows, b.finished_at,
        (SELECT count(*) FROM public.embedding AS e WHERE e.model_id = m.id) AS rows_now,
        analytics.changes_since(b.id) AS changed
    FROM public.model AS m
    LEFT JOIN public.index_build AS b ON b.id = (SELECT analytics.build_in_use())
    WHERE m.active
)
SELECT
    name AS model,
    build,
    finished_at AS built_at,
    extract(epoch FROM clock_timestamp() - finished_at)::double precision AS age_seconds,
    rows AS rows_in_build,
    rows_now AS rows_in_table,
    CASE WHEN build IS NULL THEN rows_now ELSE changed END AS changed_rows,
    CASE WHEN build IS NULL THEN 0 ELSE greatest(0, rows - (rows_now - changed)) END AS gone_rows
FROM used;
COMMENT ON VIEW analytics.freshness IS
    'one row: the active model, the build its searches use (null: none), its age in seconds, and how'
    ' many embeddings were written since (changed_rows, searched exactly) and how many of the build'
    ' are there no more, written anew or deleted (gone_rows); searches see all of it either way';
COMMENT ON COLUMN analytics.freshness.model IS 'name of the active model';
COMMENT ON COLUMN analytics.freshness.build IS 'the build that searches use; null: none';
COMMENT ON COLUMN analytics.freshness.built_at IS 'when it was finished';
COMMENT ON COLUMN analytics.freshness.age_seconds IS 'seconds since then';
COMMENT ON COLUMN analytics.freshness.rows_in_build IS 'embeddings in the build';
COMMENT ON COLUMN analytics.freshness.rows_in_table IS 'embeddings of the model now';
COMMENT ON COLUMN analytics.freshness.changed_rows IS
    'embeddings written since the build, which are searched exactly';
COMMENT ON COLUMN analytics.freshness.gone_rows IS
    'embeddings of the build that are written anew or deleted since';
