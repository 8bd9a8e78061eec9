-- What stands alone, and what another brand offers: every product of a selection compared with the
-- whole catalogue in one statement. Exact.

CREATE OR REPLACE FUNCTION analytics.without_look_alike(
    max_distance double precision DEFAULT 0.2,
    brand text[] DEFAULT NULL,
    category text[] DEFAULT NULL
) RETURNS TABLE (sku text, title text)
LANGUAGE plpgsql STABLE ROWS 100 SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    model public.model := analytics._active_model();
BEGIN
    PERFORM analytics._check(1, max_distance);
    PERFORM analytics._check_lists(
        to_jsonb(without_look_alike.brand), to_jsonb(without_look_alike.category));
    -- An anti-join stops at the first look-alike.
    RETURN QUERY EXECUTE format($query$
        SELECT p.sku, p.title
        FROM product AS p
        WHERE ($2 IS NULL OR p.brand = ANY($2)) AND ($3 IS NULL OR p.category = ANY($3))
            AND EXISTS (
                SELECT FROM product_picture AS pp JOIN %1$I AS e USING (picture_id)
                WHERE pp.product_id = p.id)
            AND NOT EXISTS (
                SELECT FROM product_picture AS pp
                JOIN %1$I AS e USING (picture_id)
                JOIN %1$I AS o ON o.vec <=> e.vec <= $1
                JOIN product_picture AS shown ON shown.picture_id = o.picture_id
                WHERE pp.product_id = p.id AND shown.product_id <> p.id)
        ORDER BY p.sku COLLATE "C"
    $query$, 'embedding_m' || model.id)
    USING max_distance, without_look_alike.brand, without_look_alike.category;
END $$;
COMMENT ON FUNCTION analytics.without_look_alike(double precision, text[], text[]) IS
    'products of a brand and a category none of whose pictures is within max_distance (cosine, 0 to'
    ' 2) of a picture of another product; products without an embedded picture are left out. Exact:'
    ' compares each with the whole catalogue until one is found';

CREATE OR REPLACE FUNCTION analytics.nearest_of_another_brand(
    brand text[] DEFAULT NULL,
    category text[] DEFAULT NULL
) RETURNS TABLE (
    sku text, other text, other_brand text, distance double precision, similarity double precision
)
LANGUAGE plpgsql STABLE ROWS 1000 SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    model public.model := analytics._active_model();
BEGIN
    PERFORM analytics._check_lists(
        to_jsonb(nearest_of_another_brand.brand), to_jsonb(nearest_of_another_brand.category));
    RETURN QUERY EXECUTE format($query$
        SELECT p.sku, found.sku, found.brand, found.distance, 1 - found.distance
        FROM product AS p CROSS JOIN LATERAL (
            -- Most products of another brand are among the nearest pictures, whatever their brand:
            -- all others are joined with their products only if none of them is. Nothing that is
            -- not among them is nearer than the farthest of them, of any own picture.
            WITH near AS MATERIALIZED (
                SELECT o.picture_id, o.distance, max(o.distance) OVER (PARTITION BY e.picture_id)
                    AS seen_to
                FROM product_picture AS pp JOIN %1$I AS e USING (picture_id)
                CROSS JOIN LATERAL (
                    -- + 0: no approximate index serves this order.
                    SELECT n.picture_id, n.vec <=> e.vec AS distance
                    FROM %1$I AS n ORDER BY (n.vec <=> e.vec) + 0 LIMIT 200) AS o
                WHERE pp.product_id = p.id
            ), closest AS MATERIALIZED (
                SELECT q.id, q.sku, q.brand, near.distance
                FROM near JOIN product_picture AS shown USING (picture_id)
                JOIN product AS q ON q.id = shown.product_id
                WHERE q.brand <> p.brand AND near.distance < (SELECT min(n.seen_to) FROM near AS n)
                ORDER BY near.distance, q.id LIMIT 1
            )
            SELECT * FROM closest
          UNION ALL (
            SELECT q.id, q.sku, q.brand, o.vec <=> e.vec AS distance
            FROM product_picture AS pp
            JOIN %1$I AS e ON e.picture_id = pp.picture_id
            CROSS JOIN %1$I AS o
            JOIN product_picture AS shown ON shown.picture_id = o.picture_id
            JOIN product AS q ON q.id = shown.product_id
            WHERE pp.product_id = p.id AND q.brand <> p.brand AND NOT EXISTS (SELECT FROM closest)
            ORDER BY distance, q.id LIMIT 1)) AS found
        WHERE ($1 IS NULL OR p.brand = ANY($1)) AND ($2 IS NULL OR p.category = ANY($2))
        ORDER BY found.distance, p.sku COLLATE "C"
    $query$, 'embedding_m' || model.id)
    USING nearest_of_another_brand.brand, nearest_of_another_brand.category;
END $$;
COMMENT ON FUNCTION analytics.nearest_of_another_brand(text[], text[]) IS
    'for each product of a brand and a category the product of another brand with the nearest'
    ' picture (cosine distance, 0 to 2), the nearest first. Exact: compares each with the whole'
    ' catalogue';
