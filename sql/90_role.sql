-- The role of analysts, which may read this schema and nothing else. Roles belong to the cluster,
-- so it may exist already for another database; changes made to it by an administrator are kept.

DO $$
BEGIN
    IF to_regrole('lookalike_analyst') IS NOT NULL THEN
        RETURN;
    END IF;
    IF NOT (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
        RAISE WARNING 'The role lookalike_analyst does not exist, and % may not create roles.',
            current_user
            USING HINT = 'Analysts cannot read this database yet. Let a superuser run'
                ' `CREATE ROLE lookalike_analyst NOLOGIN CONNECTION LIMIT 10`, then run'
                ' `lookalike migrate` again.';
        RETURN;
    END IF;
    CREATE ROLE lookalike_analyst NOLOGIN CONNECTION LIMIT 10;
    ALTER ROLE lookalike_analyst SET default_transaction_read_only = on;
    ALTER ROLE lookalike_analyst SET statement_timeout = '60s';
    ALTER ROLE lookalike_analyst SET idle_in_transaction_session_timeout = '60s';
    COMMENT ON ROLE lookalike_analyst IS
        'reads the schema analytics of Lookalike databases and nothing else of them';
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- another database of this cluster was migrated at the same moment
END $$;

-- PUBLIC may execute new functions until that is revoked.
DO $$
DECLARE
    made record;
    pgvector name := (
        SELECT nspname FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace
        WHERE extname = 'vector');
    -- From the table, because the role cache may not know a role that another database just
    -- created.
    analyst boolean := EXISTS (SELECT FROM pg_roles WHERE rolname = 'lookalike_analyst');
BEGIN
    FOR made IN
        SELECT oid::regprocedure AS name, proname ~ '^_' AS for_others FROM pg_proc
        WHERE pronamespace = 'analytics'::regnamespace AND pg_has_role(proowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made.name);
        IF pgvector <> 'public' THEN
            EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, public, %I, pg_temp',
                made.name, pgvector);
        END IF;
        IF analyst AND NOT made.for_others THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO lookalike_analyst', made.name);
        END IF;
    END LOOP;
    IF analyst THEN
        GRANT USAGE ON SCHEMA analytics TO lookalike_analyst;
        GRANT SELECT ON ALL TABLES IN SCHEMA analytics TO lookalike_analyst;
        -- For the vector types and operators; tables in that schema stay inaccessible.
        IF NOT has_schema_privilege('lookalike_analyst', pgvector, 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO lookalike_analyst', pgvector);
        END IF;
    END IF;
END $$;

-- In a new database PUBLIC may create temporary tables, and before PostgreSQL 15 also tables in the
-- schema public. Users that write the catalogue keep the former: an ingest needs temporary tables.
DO $$
DECLARE
    loader name;
BEGIN
    IF NOT (
        SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()
    ) THEN
        RAISE WARNING 'Analysts may make temporary tables: % does not own this database.',
            current_user
            USING HINT = format('Let its owner run `REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC`.',
                current_database());
        RETURN;
    END IF;
    IF has_schema_privilege('public', 'public', 'CREATE') THEN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    END IF;
    IF has_database_privilege('public', current_database(), 'TEMPORARY') THEN
        FOR loader IN
            SELECT rolname FROM pg_roles
            WHERE NOT rolsuper AND rolname !~ '^pg_'
                AND has_table_privilege(oid, 'public.product', 'INSERT')
        LOOP
            EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), loader);
        END LOOP;
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
END $$;
