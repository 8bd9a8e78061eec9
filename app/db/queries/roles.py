"""SQL of the database roles: one owns the schema and migrates, one serves and cannot change it.

The names of the roles are passed as session settings and quoted, never put into the SQL text.
"""

from __future__ import annotations

import psycopg
from psycopg import sql
from sqlalchemy import Connection

CREATE_ROLES = """
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[current_setting('lookalike.migrator'),
                                current_setting('lookalike.server')] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
    END LOOP;
    -- A user that is not a superuser can transfer ownership only to roles it can set.
    IF NOT pg_has_role(current_setting('lookalike.migrator'), 'SET') THEN
        EXECUTE format('GRANT %I TO CURRENT_USER', current_setting('lookalike.migrator'));
    END IF;
    -- The migrator may not create roles, so the role of analysts is created here.
    IF to_regrole('lookalike_analyst') IS NULL THEN
        CREATE ROLE lookalike_analyst NOLOGIN CONNECTION LIMIT 10;
        ALTER ROLE lookalike_analyst SET default_transaction_read_only = on;
        ALTER ROLE lookalike_analyst SET statement_timeout = '60s';
        ALTER ROLE lookalike_analyst SET idle_in_transaction_session_timeout = '60s';
    END IF;
END $$"""

CREATE_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"

SCHEMA_PRIVILEGES = """
DO $$
DECLARE
    migrator text := quote_ident(current_setting('lookalike.migrator'));
    server text := quote_ident(current_setting('lookalike.server'));
    database text := quote_ident(current_database());
BEGIN
    EXECUTE format('ALTER DATABASE %s OWNER TO %s', database, migrator);
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %s TO %s', database, server);
    EXECUTE format('REVOKE CREATE ON DATABASE %s FROM %s', database, server);
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %s', migrator);
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %s', server);
    EXECUTE format('REVOKE CREATE ON SCHEMA public FROM PUBLIC, %s', server);
END $$"""

GRANT_MONITORING = """
DO $$
BEGIN
    -- The worker ends sessions of analysts that take too long.
    EXECUTE format('GRANT pg_read_all_stats, pg_signal_backend TO %I',
        current_setting('lookalike.server'));
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'The worker cannot end sessions of analysts: % may not grant the right to it.',
        current_user
        USING HINT = format('Let a superuser run `GRANT pg_read_all_stats, pg_signal_backend'
            ' TO %I`, or let analysts ask a replica.', current_setting('lookalike.server'));
END $$"""

TRANSFER_OWNERSHIP = """
DO $$
DECLARE
    migrator text := current_setting('lookalike.migrator');
    change text;
BEGIN
    -- A transaction each, and none waits long: searches go on.
    FOR change IN
        SELECT format('ALTER SCHEMA %I OWNER TO %I', nspname, migrator)
        FROM pg_namespace
        WHERE nspname = 'analytics' AND nspowner <> quote_ident(migrator)::regrole
      UNION ALL
        SELECT format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, migrator)
        FROM pg_class AS c
        WHERE c.relnamespace IN ('public'::regnamespace, to_regnamespace('analytics'))
            AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relowner <> quote_ident(migrator)::regrole
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
      UNION ALL
        SELECT format('ALTER TYPE %s OWNER TO %I', t.oid::regtype, migrator)
        FROM pg_type AS t
        WHERE t.typnamespace IN ('public'::regnamespace, to_regnamespace('analytics'))
            AND t.typowner <> quote_ident(migrator)::regrole
            AND (t.typtype IN ('d', 'e') OR EXISTS (
                SELECT FROM pg_class WHERE oid = t.typrelid AND relkind = 'c'))
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = t.oid AND deptype = 'e')
      UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, migrator)
        FROM pg_proc AS p
        WHERE p.pronamespace IN ('public'::regnamespace, to_regnamespace('analytics'))
            AND p.proowner <> quote_ident(migrator)::regrole
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
    LOOP
        COMMIT;
        SET LOCAL lock_timeout = '2s';
        EXECUTE change;
    END LOOP;
END $$"""

GRANT_SERVICE = """
DO $$
DECLARE
    migrator text := quote_ident(current_setting('lookalike.migrator'));
    server text := quote_ident(current_setting('lookalike.server'));
BEGIN
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA public'
        ' GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON TABLES TO %s', migrator, server);
    -- MAINTAIN: a load analyses what it filled.
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN'
        ' ON ALL TABLES IN SCHEMA public TO %s', server);
END $$"""

PROTECT_REVISION = """
DO $$
DECLARE
    change text;
BEGIN
    FOR change IN
        SELECT DISTINCT format('REVOKE INSERT, UPDATE, DELETE ON %s FROM %I', c.oid::regclass,
            pg_get_userbyid(given.grantee))
        FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS given
        WHERE c.oid IN (to_regclass('alembic_version'), to_regclass('schema_serves'))
            AND given.grantee NOT IN (0, c.relowner) AND pg_has_role(c.relowner, 'USAGE')
            AND given.privilege_type IN ('INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE change;
    END LOOP;
END $$"""
"""Only migrations may write the schema revision, whatever default privileges give to new tables."""

STEPS = (
    CREATE_ROLES,
    CREATE_EXTENSION,
    SCHEMA_PRIVILEGES,
    GRANT_MONITORING,
    TRANSFER_OWNERSHIP,
    GRANT_SERVICE,
    PROTECT_REVISION,
)
"""Executed in this order; each may run repeatedly."""


def set_role_names(migrator: str, server: str) -> str:
    """The statement that names the two roles to the steps, which must run in the same session."""
    statement = sql.SQL(
        "SELECT set_config('lookalike.migrator', {}, false),"
        " set_config('lookalike.server', {}, false)"
    )
    return statement.format(sql.Literal(migrator), sql.Literal(server)).as_string(None)


def protect_revision(connection: Connection) -> None:
    """Revoke write access to the schema revision from all roles except the owner."""
    connection.execution_options(no_parameters=True).exec_driver_sql(PROTECT_REVISION)


def set_password(connection: psycopg.Connection, role: str, hashed: str) -> None:
    """Set the password of a role, hashed by the client, so that the server logs no plain text."""
    connection.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(hashed))
    )
