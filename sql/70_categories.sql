-- Centroids of categories and brands, and products whose pictures do not fit their category.

CREATE OR REPLACE FUNCTION analytics.centroid(category text DEFAULT NULL, brand text DEFAULT NULL)
RETURNS vector
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_custom_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    active integer := (analytics._active_model()).id;
    centre vector;
BEGIN
    IF centroid.category IS NULL AND centroid.brand IS NULL THEN
        RAISE EXCEPTION 'Neither a category nor a brand was named.'
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Write centroid(''lamp'') or centroid(brand => ''Kestrel'').';
    END IF;
    SELECT avg(e.vec::vector) INTO centre
    FROM embedding AS e
    WHERE e.model_id = active AND e.picture_id IN (
        SELECT pp.picture_id FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
        WHERE (centroid.category IS NULL OR p.category = centroid.category)
            AND (centroid.brand IS NULL OR p.brand = centroid.brand));
    IF centre IS NULL THEN
        RAISE EXCEPTION 'No product of % has a picture with an embedding.', concat_ws(
                ' and ', 'category ' || quote_literal(category), 'brand ' || quote_literal(brand))
            USING ERRCODE = 'no_data_found',
                HINT = 'Values are compared letter for letter; analytics.coverage lists them.';
    END IF;
    RETURN l2_normalize(centre);
END $$;
COMMENT ON FUNCTION analytics.centroid(text, text) IS
    'the mean direction, of length 1, of the pictures that products of a category, of a brand or of'
    ' both show, each picture once, under the active model; search_products takes it';

CREATE OR REPLACE FUNCTION analytics.outliers(category text DEFAULT NULL, n integer DEFAULT 10)
RETURNS TABLE (
    rank integer,
    sku text,
    filed_under text,
    looks_like text,
    margin double precision,
    distance double precision,
    other_distance double precision,
    shown_elsewhere bigint,
    picture text
)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 10 SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_custom_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    active integer := (analytics._active_model()).id;
BEGIN
    PERFORM analytics._check(n, 0);
    IF category IS NOT NULL
        AND NOT EXISTS (SELECT FROM product AS p WHERE p.category = outliers.category) THEN
        RAISE EXCEPTION 'No product is of the category %.', quote_literal(category)
            USING ERRCODE = 'no_data_found',
                HINT = 'Categories are compared letter for letter; analytics.coverage lists them.';
    END IF;
    RETURN QUERY
    WITH shown AS MATERIALIZED (
        SELECT DISTINCT p.category, pp.picture_id
        FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
        WHERE p.category IS NOT NULL
    ), centre AS MATERIALIZED (
        SELECT s.category, sum(e.vec::vector) AS total,
            l2_normalize(avg(e.vec::vector))::halfvec AS vec
        FROM shown AS s
        JOIN embedding AS e ON e.model_id = active AND e.picture_id = s.picture_id
        GROUP BY s.category HAVING count(*) > 2
    ), judged AS MATERIALIZED (
        SELECT s.category, s.picture_id, other.category AS looks_like,
            -- Without the picture itself, which would shift the centre of a small category.
            (own.total - e.vec::vector) <=> e.vec::vector AS distance,
            other.distance AS other_distance,
            (SELECT count(*) FROM product_picture AS pp JOIN product AS p ON p.id = pp.product_id
             WHERE pp.picture_id = s.picture_id AND p.category <> s.category) AS shown_elsewhere
        FROM shown AS s
        JOIN embedding AS e ON e.model_id = active AND e.picture_id = s.picture_id
        JOIN centre AS own USING (category)
        CROSS JOIN LATERAL (
            SELECT c.category, c.vec <=> e.vec AS distance FROM centre AS c
            WHERE c.category <> s.category ORDER BY 2 LIMIT 1
        ) AS other
        WHERE outliers.category IS NULL OR s.category = outliers.category
    ), worst AS (
        SELECT DISTINCT ON (p.id) p.id, p.sku, j.*, j.distance - j.other_distance AS margin
        FROM product AS p
        JOIN product_picture AS pp ON pp.product_id = p.id
        JOIN judged AS j ON j.category = p.category AND j.picture_id = pp.picture_id
        ORDER BY p.id, j.shown_elsewhere > 0 DESC, j.distance - j.other_distance DESC, j.picture_id
    ), page AS (
        SELECT * FROM worst AS w
        ORDER BY w.shown_elsewhere > 0 DESC, w.margin DESC, w.id LIMIT n
    )
    SELECT (row_number() OVER (ORDER BY w.shown_elsewhere > 0 DESC, w.margin DESC, w.id))::integer,
        w.sku, w.category, w.looks_like, w.margin, w.distance, w.other_distance, w.shown_elsewhere,
        encode(i.sha256, 'hex')
    FROM page AS w JOIN picture AS i ON i.id = w.picture_id
    ORDER BY 1;
END $$;
COMMENT ON FUNCTION analytics.outliers(text, integer) IS
    'the n products (of one category, or of all) whose pictures fit their category least, probably'
    ' wrong photos: first those whose picture a product of another category shows too'
    ' (shown_elsewhere: how many do), then by margin = distance - other_distance. distance is the'
    ' cosine distance (0 to 2) of the worst picture to the centre of its category without itself,'
    ' other_distance that to the nearest centre of another, looks_like; a margin above 0 fits the'
    ' other better. Categories with fewer than three pictures have no centre and are left out, so is'
    ' a photo swapped within one category. Time grows with pictures times categories';
