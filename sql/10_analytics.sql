-- The schema for analysts, and what its functions share. All files of this folder are replayed
-- after every migration, in the order of their names and in one transaction, so each statement must
-- be repeatable.
--
-- Views may only get new columns at the end, and functions keep their arguments, because views of
-- analysts may depend on them. To change more, drop the object first, never with CASCADE. A
-- migration that alters a column of a view drops the view, which is created again here. Functions
-- run with the rights of their owner, so they set search_path, and only 90_role.sql grants their
-- use. Functions whose names begin with _ are internal.

CREATE SCHEMA IF NOT EXISTS analytics;
COMMENT ON SCHEMA analytics IS
    'views and functions for analysts; the tables behind them may change, these stay';

-- If pgvector is installed in another schema, function bodies cannot be checked before 90_role.sql
-- has added that schema to the search_path of the functions.
DO $$
BEGIN
    IF to_regtype('public.halfvec') IS NULL THEN
        PERFORM set_config('check_function_bodies', 'off', true);
    END IF;
END $$;

DO $$
BEGIN
    IF to_regtype('analytics.match') IS NULL THEN
        CREATE TYPE analytics.match AS (
            rank integer,
            sku text,
            title text,
            brand text,
            category text,
            colour text,
            year integer,
            price numeric,
            currency text,
            picture text,
            distance double precision,
            similarity double precision
        );
    END IF;
END $$;
COMMENT ON TYPE analytics.match IS
    'a product that was found: rank from 1, picture the sha256 of its most similar picture,'
    ' distance (cosine, 0 the same to 2 opposite), similarity = 1 - distance';
COMMENT ON COLUMN analytics.match.rank IS 'place in the answer, from 1';
COMMENT ON COLUMN analytics.match.sku IS 'name of the product, unique';
COMMENT ON COLUMN analytics.match.title IS 'as it was loaded';
COMMENT ON COLUMN analytics.match.brand IS 'as it was loaded; null: not known';
COMMENT ON COLUMN analytics.match.category IS 'as it was loaded; null: not known';
COMMENT ON COLUMN analytics.match.colour IS 'as it was loaded; null: not known';
COMMENT ON COLUMN analytics.match.year IS 'calendar year; null: not known';
COMMENT ON COLUMN analytics.match.price IS 'in units of currency; null: not known';
COMMENT ON COLUMN analytics.match.currency IS 'as it was loaded, such as EUR';
COMMENT ON COLUMN analytics.match.picture IS
    'sha256, in hexadecimal, of the most similar picture of the product';
COMMENT ON COLUMN analytics.match.distance IS 'cosine distance, 0 (the same) to 2 (opposite)';
COMMENT ON COLUMN analytics.match.similarity IS
    'cosine, 1 (the same) to -1 (opposite): 1 - distance';

CREATE OR REPLACE FUNCTION analytics._active_model() RETURNS public.model
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    found model;
BEGIN
    SELECT * INTO found FROM model AS m WHERE m.active;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'No model is recorded in this database.'
            USING ERRCODE = 'no_data_found', HINT = 'Run `lookalike init`.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION analytics._active_model() IS
    'the model whose embeddings are compared; an error where none is active';

CREATE OR REPLACE FUNCTION analytics._check(count integer, distance double precision) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF count IS NULL OR count < 1 THEN
        RAISE EXCEPTION 'The number of rows asked for is %.', coalesce(count::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Ask for 1 or more.';
    END IF;
    -- NaN is greater than every number.
    IF distance IS NULL OR distance < 0 OR distance > 2 THEN
        RAISE EXCEPTION 'The distance asked for is %.', coalesce(distance::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'A cosine distance lies between 0 (the same) and 2 (opposite).';
    END IF;
END $$;
COMMENT ON FUNCTION analytics._check(integer, double precision) IS
    'an error unless at least one row is asked for and the cosine distance lies within 0 and 2';

CREATE OR REPLACE FUNCTION analytics._product_id(sku text) RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    found bigint;
BEGIN
    SELECT p.id INTO found FROM product AS p WHERE p.sku = _product_id.sku;
    IF found IS NULL THEN
        RAISE EXCEPTION 'No product of the catalogue has the sku %.',
            coalesce(quote_literal(sku), 'NULL')
            USING ERRCODE = 'no_data_found',
                HINT = 'Skus are compared letter for letter; analytics.products lists them.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION analytics._product_id(text) IS
    'the id of a product; an error for an unknown sku';

-- NULL equals nothing, so such a list would silently exclude every product.
CREATE OR REPLACE FUNCTION analytics._check_lists(VARIADIC lists jsonb[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM unnest(lists) AS list WHERE jsonb_path_exists(list, '$[*][*] ? (@ == null)')
    ) THEN
        RAISE EXCEPTION 'A list of values to pass holds NULL, which equals nothing.'
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Leave it out; NULL instead of the whole list lets all pass.';
    END IF;
END $$;
COMMENT ON FUNCTION analytics._check_lists(jsonb[]) IS
    'an error where one of the lists of values (arrays as JSON) holds a NULL';

-- The arithmetic of `SearchService`, step by step in the same precision: only then do the float16
-- values, and so the distances, agree to the digit.
CREATE OR REPLACE FUNCTION analytics._rounded(direction real[]) RETURNS halfvec
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    unit real[];
    length double precision := (
        SELECT sqrt(sum(x::double precision ^ 2)) FROM unnest(direction) AS x);
BEGIN
    IF length IS NULL OR length < 1e-6 THEN
        RAISE EXCEPTION 'The vector is zero and points nowhere.'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give a direction to search in.';
    END IF;
    -- numpy rounds tiny numbers to 0, where PostgreSQL raises an underflow error. 1e-30 is far
    -- below the range of float16.
    unit := ARRAY(SELECT CASE WHEN abs(x / length) > 1e-30 THEN (x / length)::real ELSE 0 END
                  FROM unnest(direction) WITH ORDINALITY AS d(x, place) ORDER BY place);
    length := (SELECT sqrt(sum(x::double precision ^ 2)) FROM unnest(unit) AS x);
    RETURN ARRAY(SELECT x / length::real
                 FROM unnest(unit) WITH ORDINALITY AS d(x, place) ORDER BY place)::halfvec;
END $$;
COMMENT ON FUNCTION analytics._rounded(real[]) IS
    'a direction as every search uses it: of length 1, rounded once to float16';
