-- What analysts read: the schema, and what its functions share. Replayed in the order of the files'
-- names, in one transaction, after every migration, so each statement may run again and again.
--
-- A view may get new columns at its end and nothing else, a function no other arguments: somebody's
-- own views may stand on them. What must change otherwise is dropped first, never with CASCADE; and
-- a migration that alters a column some view shows drops that view, which comes back here.
-- Functions run with their owner's rights, so they name where they look and are nobody's until
-- 90_role.sql grants them. Those that begin with _ are for the others here.

CREATE SCHEMA IF NOT EXISTS analytics;
COMMENT ON SCHEMA analytics IS
    'views and functions for analysts; the tables behind them may change, these stay';

-- Where pgvector lies in another schema than ours, bodies are not read before 90_role.sql has told
-- the functions of it.
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

-- What equals nothing would leave out every product without a word.
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
    -- Far below what float16 keeps; PostgreSQL refuses to round a number to 0, and numpy does it.
    unit := ARRAY(SELECT CASE WHEN abs(x / length) > 1e-30 THEN (x / length)::real ELSE 0 END
                  FROM unnest(direction) WITH ORDINALITY AS d(x, place) ORDER BY place);
    length := (SELECT sqrt(sum(x::double precision ^ 2)) FROM unnest(unit) AS x);
    RETURN ARRAY(SELECT x / length::real
                 FROM unnest(unit) WITH ORDINALITY AS d(x, place) ORDER BY place)::halfvec;
END $$;
COMMENT ON FUNCTION analytics._rounded(real[]) IS
    'a direction as every search uses it: of length 1, rounded once to float16';
