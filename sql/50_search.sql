-- Nearest products to a vector or a product; exact with any filter.
--
-- An omitted filter is NULL and lets all products pass. force_custom_plan: a generic plan would
-- have to allow for omitted filters, and could not use the index of a given one.

CREATE OR REPLACE FUNCTION analytics._nearest(
    query halfvec,
    k integer,
    max_distance double precision,
    excluded bigint,
    brand text[],
    category text[],
    colour text[],
    currency text[],
    min_year integer,
    max_year integer,
    min_price numeric,
    max_price numeric,
    attributes jsonb
) RETURNS SETOF analytics.match
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 10
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_custom_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    active integer := (analytics._active_model()).id;
BEGIN
    PERFORM analytics._check(k, max_distance);
    PERFORM analytics._check_lists(
        to_jsonb(brand), to_jsonb(category), to_jsonb(colour), to_jsonb(currency));
    IF 'NaN' IN (min_price, max_price) THEN
        RAISE EXCEPTION 'A bound of the price is no number.'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give an amount; NULL is no bound.';
    END IF;
    IF jsonb_typeof(attributes) <> 'object' THEN
        RAISE EXCEPTION 'The attributes asked for are no object: %.', left(attributes::text, 80)
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Write for example {"packaged": 1}; NULL lets all pass.';
    END IF;
    IF min_year > max_year OR min_price > max_price THEN
        RAISE EXCEPTION 'A range ends before it begins: years % to %, prices % to %.',
            min_year, max_year, min_price, max_price
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Turn it round; NULL is no bound.';
    END IF;
    RETURN QUERY
    WITH best AS (
        -- By product first: an order that pgvector's index, which is approximate, cannot give.
        SELECT DISTINCT ON (p.id) p.id, e.picture_id, e.vec <=> _nearest.query AS distance
        FROM product AS p
        JOIN product_picture AS pp ON pp.product_id = p.id
        JOIN embedding AS e ON e.model_id = active AND e.picture_id = pp.picture_id
        WHERE p.id IS DISTINCT FROM _nearest.excluded
            AND (_nearest.brand IS NULL OR p.brand = ANY(_nearest.brand))
            AND (_nearest.category IS NULL OR p.category = ANY(_nearest.category))
            AND (_nearest.colour IS NULL OR p.colour = ANY(_nearest.colour))
            AND (_nearest.currency IS NULL OR p.currency = ANY(_nearest.currency))
            AND (_nearest.min_year IS NULL OR p.year >= _nearest.min_year)
            AND (_nearest.max_year IS NULL OR p.year <= _nearest.max_year)
            AND (_nearest.min_price IS NULL OR p.price >= _nearest.min_price)
            AND (_nearest.max_price IS NULL OR p.price <= _nearest.max_price)
            AND (_nearest.attributes IS NULL OR p.attributes @> _nearest.attributes)
        ORDER BY p.id, distance, e.picture_id
    ), page AS (
        SELECT * FROM best AS b WHERE b.distance <= _nearest.max_distance
        ORDER BY b.distance, b.id LIMIT _nearest.k
    )
    SELECT (row_number() OVER (ORDER BY page.distance, page.id))::integer, p.sku, p.title, p.brand,
        p.category, p.colour, p.year, p.price, p.currency, encode(i.sha256, 'hex'),
        page.distance, 1 - page.distance
    FROM page
    JOIN product AS p USING (id)
    JOIN picture AS i ON i.id = page.picture_id
    ORDER BY page.distance, page.id;
END $$;
COMMENT ON FUNCTION analytics._nearest(
    halfvec, integer, double precision, bigint, text[], text[], text[], text[],
    integer, integer, numeric, numeric, jsonb
) IS 'the k products nearest to a rounded vector, but for one id';

CREATE OR REPLACE FUNCTION analytics.search_products(
    vec vector,
    k integer DEFAULT 10,
    max_distance double precision DEFAULT 2,
    brand text[] DEFAULT NULL,
    category text[] DEFAULT NULL,
    colour text[] DEFAULT NULL,
    currency text[] DEFAULT NULL,
    min_year integer DEFAULT NULL,
    max_year integer DEFAULT NULL,
    min_price numeric DEFAULT NULL,
    max_price numeric DEFAULT NULL,
    attributes jsonb DEFAULT NULL
) RETURNS SETOF analytics.match
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 10 SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    model public.model := analytics._active_model();
BEGIN
    IF vec IS NULL OR vector_dims(vec) <> model.dim THEN
        RAISE EXCEPTION 'The vector has % dimensions, the model % has %.',
            coalesce(vector_dims(vec)::text, 'no'), model.name, model.dim
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Give one made by this model, such as analytics.embeddings.embedding.';
    END IF;
    RETURN QUERY SELECT * FROM analytics._nearest(
        analytics._rounded(vec::real[]), k, max_distance, NULL, brand, category, colour, currency,
        min_year, max_year, min_price, max_price, attributes);
END $$;
COMMENT ON FUNCTION analytics.search_products(
    vector, integer, double precision, text[], text[], text[], text[],
    integer, integer, numeric, numeric, jsonb
) IS
    'the k products nearest to a vector of the active model (any length but 0), best first, ties in'
    ' the order they were added; exact. max_distance: cosine, 0 to 2. brand, category, colour and'
    ' currency pass if they equal one of the values, letter for letter, and none of an empty list;'
    ' years and prices lie within their bounds, ends included; attributes are contained in the'
    ' product''s. NULL lets all pass. Fewer than k come only where no more match';

CREATE OR REPLACE FUNCTION analytics.similar_products(
    sku text,
    k integer DEFAULT 10,
    max_distance double precision DEFAULT 2,
    brand text[] DEFAULT NULL,
    category text[] DEFAULT NULL,
    colour text[] DEFAULT NULL,
    currency text[] DEFAULT NULL,
    min_year integer DEFAULT NULL,
    max_year integer DEFAULT NULL,
    min_price numeric DEFAULT NULL,
    max_price numeric DEFAULT NULL,
    attributes jsonb DEFAULT NULL
) RETURNS SETOF analytics.match
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 10 SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    model public.model := analytics._active_model();
    own bigint := analytics._product_id(sku);
    mean real[];
BEGIN
    -- In single precision and in the order of the pictures, as `SearchService` adds them.
    SELECT array_agg(m.mean ORDER BY m.place) INTO mean
    FROM (
        SELECT v.place, sum(v.x ORDER BY pp.position) / count(*)::real AS mean
        FROM product_picture AS pp
        JOIN embedding AS e ON e.model_id = model.id AND e.picture_id = pp.picture_id
        CROSS JOIN unnest(e.vec::vector::real[]) WITH ORDINALITY AS v(x, place)
        WHERE pp.product_id = own
        GROUP BY v.place
    ) AS m;
    IF mean IS NULL THEN
        RAISE EXCEPTION 'The product % has no picture with an embedding under %.',
            quote_literal(sku), model.name
            USING ERRCODE = 'no_data_found', HINT = 'Ingest it again with a picture.';
    END IF;
    RETURN QUERY SELECT * FROM analytics._nearest(
        analytics._rounded(mean), k, max_distance, own, brand, category, colour, currency,
        min_year, max_year, min_price, max_price, attributes);
END $$;
COMMENT ON FUNCTION analytics.similar_products(
    text, integer, double precision, text[], text[], text[], text[],
    integer, integer, numeric, numeric, jsonb
) IS
    'the k products most like one, by the mean direction of its pictures, without itself; order,'
    ' max_distance and filters as in search_products. Fewer than k come only where no more match';
