-- Products with equal keys whose pictures agree; `app/duplicates/same_product.py` finds the same.

CREATE OR REPLACE FUNCTION analytics._compared_pictures(active public.model, products bigint[])
RETURNS TABLE (product_id bigint, picture_id bigint, vec halfvec)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1000 SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
    WITH few AS MATERIALIZED (
        SELECT own.id, shown.picture_id
        FROM unnest(products) AS own(id)
        CROSS JOIN LATERAL (
            SELECT pp.picture_id FROM product_picture AS pp WHERE pp.product_id = own.id
            ORDER BY pp.position, pp.picture_id LIMIT 50
        ) AS shown
    ), telling AS MATERIALIZED (
        SELECT shown.picture_id FROM (SELECT DISTINCT picture_id FROM few) AS shown
        WHERE (
            SELECT count(DISTINCT others.identity_key) FROM (
                SELECT p.identity_key
                FROM product_picture AS o JOIN product AS p ON p.id = o.product_id
                WHERE o.picture_id = shown.picture_id LIMIT 1000
            ) AS others) <= 8
    )
    SELECT few.id, few.picture_id, e.vec
    FROM few JOIN telling USING (picture_id)
    JOIN embedding AS e ON e.model_id = active.id AND e.picture_id = few.picture_id
$$;
COMMENT ON FUNCTION analytics._compared_pictures(public.model, bigint[]) IS
    'the embeddings of the first 50 pictures of products, without those that products with more'
    ' than eight identity keys show';

DROP FUNCTION IF EXISTS analytics._near_listings(public.model, bigint[], text[]);
CREATE OR REPLACE FUNCTION analytics._near_listings(
    active public.model, products bigint[], keys text[], gtins text[]
) RETURNS TABLE (a integer, b integer, distance double precision)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1000 SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
    WITH member AS MATERIALIZED (
        SELECT m.id, m.n::integer AS n, m.key, m.gtin, p.category
        FROM unnest(products, keys, gtins) WITH ORDINALITY AS m(id, key, gtin, n)
        JOIN product AS p ON p.id = m.id
        WHERE m.key <> ''
    ), key AS MATERIALIZED (
        SELECT member.key,
            CASE WHEN analytics._is_generic(member.key)
                THEN analytics._generic_share(active) ELSE 1 END AS share
        FROM member GROUP BY member.key HAVING count(*) > 1
    ), cut AS MATERIALIZED (
        SELECT own.category, analytics._same_product_cut(active, own.category) AS cut
        FROM (SELECT DISTINCT category FROM member UNION SELECT NULL) AS own
    ), compared AS MATERIALIZED (
        SELECT m.n, m.key, m.gtin, m.category, c.vec
        FROM analytics._compared_pictures(active, ARRAY(
            SELECT id FROM member WHERE member.key IN (SELECT key.key FROM key))) AS c
        JOIN member AS m ON m.id = c.product_id
    ), pair AS (
        SELECT x.n AS a, y.n AS b, x.key, min(x.vec <=> y.vec) AS distance,
            min(CASE WHEN x.category = y.category THEN x.category END) AS category
        FROM compared AS x JOIN compared AS y ON y.key = x.key AND y.n > x.n
        WHERE (x.gtin <> y.gtin) IS NOT TRUE
        GROUP BY x.n, y.n, x.key
    )
    SELECT pair.a, pair.b, pair.distance
    FROM pair JOIN key USING (key) JOIN cut ON cut.category IS NOT DISTINCT FROM pair.category
    WHERE pair.distance <= cut.cut * key.share + 1e-6
$$;
COMMENT ON FUNCTION analytics._near_listings(public.model, bigint[], text[], text[]) IS
    'pairs of products (numbers in the arrays) with equal keys whose pictures agree, without those'
    ' whose gtins differ';

-- For keys of many products that nothing keeps apart, where the order of joins is irrelevant: a
-- product is compared only with those that no earlier one has reached.
CREATE OR REPLACE FUNCTION analytics._reached_listings(
    active public.model, products bigint[], keys text[]
) RETURNS TABLE (a integer, b integer)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1000 SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    one record;
    open_numbers integer[];
    reached integer[];
    found integer[];
    alone integer;
    of_all double precision;
BEGIN
    of_all := analytics._same_product_cut(active, NULL);
    FOR one IN
        WITH member AS (
            SELECT m.id, m.key, m.n::integer AS n
            FROM unnest(products, keys) WITH ORDINALITY AS m(id, key, n) WHERE m.key <> ''
        ), compared AS (
            SELECT m.key, m.n, c.vec, p.category
            FROM analytics._compared_pictures(active, ARRAY(SELECT id FROM member)) AS c
            JOIN member AS m ON m.id = c.product_id JOIN product AS p ON p.id = m.id
        ), cut AS (
            SELECT own.category, analytics._same_product_cut(active, own.category) AS cut
            FROM (SELECT DISTINCT category FROM compared) AS own
        )
        SELECT compared.key, array_agg(compared.n ORDER BY compared.n) AS numbers,
            array_agg(compared.vec ORDER BY compared.n) AS vectors,
            array_agg(compared.category ORDER BY compared.n) AS categories,
            array_agg(cut.cut ORDER BY compared.n) AS cuts,
            CASE WHEN analytics._is_generic(compared.key)
                THEN analytics._generic_share(active) ELSE 1 END AS share
        FROM compared JOIN cut ON cut.category IS NOT DISTINCT FROM compared.category
        GROUP BY compared.key
    LOOP
        open_numbers := ARRAY(SELECT DISTINCT n FROM unnest(one.numbers) AS n ORDER BY n);
        reached := '{}';
        alone := 0;
        WHILE cardinality(open_numbers) > 0 LOOP
            IF cardinality(reached) = 0 THEN
                -- Where most are alone, one pass over all pairs is faster than one for each product.
                EXIT WHEN alone > 20 + cardinality(one.numbers) / 20;
                alone := alone + 1;
                reached := open_numbers[1:1];
                open_numbers := open_numbers[2:];
            END IF;
            a := reached[1];
            reached := reached[2:];
            found := ARRAY(
                WITH picture AS (
                    SELECT * FROM unnest(one.numbers, one.vectors, one.categories, one.cuts)
                        AS e(n, vec, category, cut)
                )
                SELECT y.n
                FROM (SELECT * FROM picture WHERE picture.n = a) AS x
                CROSS JOIN picture AS y JOIN unnest(open_numbers) AS o(n) ON o.n = y.n
                GROUP BY y.n
                HAVING min(x.vec <=> y.vec) <= 1e-6 + one.share * min(
                    CASE WHEN x.category = y.category THEN x.cut ELSE of_all END)
                ORDER BY y.n);
            IF cardinality(found) > 0 THEN
                RETURN QUERY SELECT a, n FROM unnest(found) AS n;
                reached := reached || found;
                open_numbers := ARRAY(
                    SELECT unnest(open_numbers) EXCEPT SELECT unnest(found) ORDER BY 1);
            END IF;
        END LOOP;
        RETURN QUERY
        WITH picture AS MATERIALIZED (
            SELECT e.* FROM unnest(one.numbers, one.vectors, one.categories, one.cuts)
                AS e(n, vec, category, cut)
            JOIN unnest(open_numbers) AS o(n) ON o.n = e.n
        )
        SELECT x.n, y.n FROM picture AS x JOIN picture AS y ON y.n > x.n
        GROUP BY x.n, y.n
        HAVING min(x.vec <=> y.vec) <= 1e-6 + one.share * min(
            CASE WHEN x.category = y.category THEN x.cut ELSE of_all END);
    END LOOP;
END $$;
COMMENT ON FUNCTION analytics._reached_listings(public.model, bigint[], text[]) IS
    'pairs of products (numbers in the arrays) with equal keys whose pictures agree, enough to'
    ' connect all of them';
