-- Products that are one, and listings that only read alike; `app/duplicates/folding.py` forms the
-- same groups, and has the rule `typo` besides.

CREATE OR REPLACE FUNCTION analytics._compared_pictures(active public.model, products bigint[])
RETURNS TABLE (product_id bigint, picture_id bigint, vec halfvec)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1000 SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
    SELECT own.id, few.picture_id, e.vec
    FROM unnest(products) AS own(id)
    CROSS JOIN LATERAL (
        SELECT pp.picture_id FROM product_picture AS pp WHERE pp.product_id = own.id
        ORDER BY pp.position, pp.picture_id LIMIT 50
    ) AS few
    JOIN embedding AS e ON e.model_id = active.id AND e.picture_id = few.picture_id
    WHERE (
        SELECT count(DISTINCT others.identity_key) FROM (
            SELECT p.identity_key
            FROM product_picture AS o JOIN product AS p ON p.id = o.product_id
            WHERE o.picture_id = few.picture_id LIMIT 1000
        ) AS others) <= 8
$$;
COMMENT ON FUNCTION analytics._compared_pictures(public.model, bigint[]) IS
    'the embeddings of the first 50 pictures of products, without those that products with more'
    ' than eight identity keys show';

CREATE OR REPLACE FUNCTION analytics._near_listings(
    active public.model, products bigint[], keys text[]
) RETURNS TABLE (a integer, b integer, distance double precision)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1000 SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
    WITH member AS MATERIALIZED (
        SELECT m.id, m.n::integer AS n, m.key, p.category
        FROM unnest(products, keys) WITH ORDINALITY AS m(id, key, n)
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
        SELECT m.n, m.key, m.category, c.vec
        FROM analytics._compared_pictures(active, ARRAY(
            SELECT id FROM member WHERE member.key IN (SELECT key.key FROM key))) AS c
        JOIN member AS m ON m.id = c.product_id
    ), pair AS (
        SELECT x.n AS a, y.n AS b, x.key, min(x.vec <=> y.vec) AS distance,
            min(CASE WHEN x.category = y.category THEN x.category END) AS category
        FROM compared AS x JOIN compared AS y ON y.key = x.key AND y.n > x.n
        GROUP BY x.n, y.n, x.key
    )
    SELECT pair.a, pair.b, pair.distance
    FROM pair JOIN key USING (key) JOIN cut ON cut.category IS NOT DISTINCT FROM pair.category
    WHERE pair.distance <= cut.cut * key.share + 1e-6
$$;
COMMENT ON FUNCTION analytics._near_listings(public.model, bigint[], text[]) IS
    'pairs of products (numbers in the arrays) with equal keys whose pictures agree';

-- Joins in three passes: verdicts; shared identifiers, then agreeing pictures, the nearest first;
-- telling words where pictures are missing. A step with `b` joins two products. Steps without are
-- the members of a class: each joins the first earlier one that it may join.
CREATE OR REPLACE FUNCTION analytics.product_groups()
RETURNS TABLE (
    product_id bigint,
    sku text,
    kept_id bigint,
    kept text,
    products bigint,
    evidence text,
    distance double precision,
    gtins text[]
)
LANGUAGE plpgsql STABLE ROWS 1000 SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    active model;
    steps refcursor;
    step record;
    skus text[];
    ids bigint[];
    keys text[];
    gtins text[];
    mpns text[];
    item_groups text[];
    parent integer[];
    -- Of roots: the gtins of the set, and whether a verdict keeps it apart from another.
    labels text[];
    judged boolean[];
    apart integer[];
    units integer[];
    groups integer[];
    class integer;
    firsts integer[];
    partner integer;
    root integer;
    child integer;
    joined boolean;
BEGIN
    SELECT * INTO active FROM model AS m WHERE m.active;
    -- The products that have words, an identifier or a verdict in common with another, in the order
    -- of their skus. Verdicts may name skus that no product has.
    WITH decided AS (
        SELECT sku_a AS sku FROM duplicate_verdict UNION SELECT sku_b FROM duplicate_verdict
    ), raw AS MATERIALIZED (
        SELECT p.id, split_part(p.identity_key, '|', 2) AS brand,
            split_part(p.identity_key, '|', 4) AS colour,
            analytics._identifier(p.attributes, 'gtin') AS gtin,
            analytics._identifier(p.attributes, 'mpn') AS mpn,
            analytics._identifier(p.attributes, 'item group') AS item_group
        FROM product AS p
        WHERE p.attributes <> '{}' AND EXISTS (
            SELECT FROM jsonb_object_keys(p.attributes) AS name
            WHERE lower(regexp_replace(name, '[^A-Za-z]', '', 'g'))
                ~ '^(g?gtin|g?ean|g?upc|g?barcode|g?isbn|g?mpn|g?(manufacturer)?part|g?item)')
    ), identified AS MATERIALIZED (
        SELECT id, gtin, CASE WHEN brand <> '' THEN brand || '|' || mpn END AS mpn,
            brand || '|' || colour || '|' || item_group AS item_group
        FROM raw
    ), linked AS (
        SELECT p.id FROM product AS p JOIN (
            SELECT identity_key FROM product WHERE identity_key <> ''
            GROUP BY identity_key HAVING count(*) > 1) AS shared USING (identity_key)
      UNION
        SELECT p.id FROM product AS p JOIN decided USING (sku)
      UNION
        SELECT unnest(array_agg(i.id))
        FROM identified AS i, LATERAL (
            VALUES (1, i.gtin), (2, i.mpn), (3, i.item_group)) AS own(kind, value)
        WHERE own.value IS NOT NULL GROUP BY own.kind, own.value HAVING count(*) > 1
    ), stored AS (
        SELECT p.id, p.sku, p.identity_key, i.gtin, i.mpn, i.item_group
        FROM linked JOIN product AS p USING (id) LEFT JOIN identified AS i USING (id)
    ), member AS (
        SELECT sku, s.id, coalesce(s.identity_key, '') AS key, s.gtin, s.mpn, s.item_group
        FROM stored AS s FULL JOIN decided USING (sku)
    )
    SELECT array_agg(m.sku ORDER BY m.sku COLLATE "C"), array_agg(m.id ORDER BY m.sku COLLATE "C"),
        array_agg(m.key ORDER BY m.sku COLLATE "C"), array_agg(m.gtin ORDER BY m.sku COLLATE "C"),
        array_agg(m.mpn ORDER BY m.sku COLLATE "C"),
        array_agg(m.item_group ORDER BY m.sku COLLATE "C")
    INTO skus, ids, keys, gtins, mpns, item_groups FROM member AS m;
    IF skus IS NULL THEN
        RETURN;
    END IF;
    parent := ARRAY(SELECT generate_series(1, cardinality(skus)));
    labels := array_fill(NULL::text, ARRAY[cardinality(skus)]);
    judged := array_fill(false, ARRAY[cardinality(skus)]);
    apart := '{}';
    FOR pass IN 1..3 LOOP
        IF pass = 1 THEN
            OPEN steps FOR
                WITH member AS (
                    SELECT sku, n::integer AS n FROM unnest(skus) WITH ORDINALITY AS m(sku, n))
                SELECT NULL::integer AS class, x.n AS a, y.n AS b
                FROM duplicate_verdict AS v
                JOIN member AS x ON x.sku = v.sku_a JOIN member AS y ON y.sku = v.sku_b
                WHERE v.same;
        ELSIF pass = 2 THEN
            OPEN steps FOR
                SELECT s.class, s.a, s.b
                FROM (
                    SELECT dense_rank() OVER (
                            ORDER BY own.kind, own.value COLLATE "C")::integer AS class,
                        m.n::integer AS a, NULL::integer AS b, NULL::numeric AS distance
                    FROM unnest(gtins, mpns, item_groups) WITH ORDINALITY AS m(g, p, i, n),
                        LATERAL (VALUES (1, m.g), (2, m.p), (3, m.i)) AS own(kind, value)
                    WHERE own.value IS NOT NULL
                  UNION ALL
                    SELECT NULL, near.a, near.b, round(near.distance::numeric, 6)
                    FROM analytics._near_listings(active, ids, keys) AS near
                ) AS s
                ORDER BY s.class NULLS LAST, s.distance, s.a, s.b;
        ELSE
            OPEN steps FOR
                WITH pictured AS (
                    SELECT DISTINCT c.product_id AS id
                    FROM analytics._compared_pictures(active, ids) AS c
                ), telling AS (
                    SELECT m.key, m.n::integer AS n, m.grp, pictured.id IS NOT NULL AS has_picture
                    FROM unnest(keys, ids, groups) WITH ORDINALITY AS m(key, id, grp, n)
                    LEFT JOIN pictured USING (id)
                    WHERE m.id IS NOT NULL AND m.key <> '' AND NOT analytics._is_generic(m.key)
                ), of_key AS (
                    SELECT key, count(DISTINCT grp) FILTER (WHERE has_picture) AS groups,
                        count(*) FILTER (WHERE NOT has_picture) AS bare
                    FROM telling GROUP BY key HAVING count(*) > 1
                )
                SELECT dense_rank() OVER (ORDER BY key COLLATE "C")::integer AS class, n AS a,
                    NULL::integer AS b
                FROM telling JOIN of_key USING (key)
                WHERE of_key.bare > 0 AND (of_key.groups < 2 OR NOT telling.has_picture)
                ORDER BY key COLLATE "C", n;
        END IF;
        class := NULL;
        firsts := '{}';
        LOOP
            FETCH steps INTO step;
            EXIT WHEN NOT FOUND;
            IF step.class IS DISTINCT FROM class THEN
                class := step.class;
                firsts := '{}';
            END IF;
            joined := false;
            FOREACH partner IN ARRAY CASE WHEN step.b IS NULL THEN firsts ELSE ARRAY[step.b] END
            LOOP
                root := step.a;
                WHILE parent[root] <> root LOOP
                    parent[root] := parent[parent[root]];
                    root := parent[root];
                END LOOP;
                child := partner;
                WHILE parent[child] <> child LOOP
                    parent[child] := parent[parent[child]];
                    child := parent[child];
                END LOOP;
                joined := root = child OR labels[root] IS NULL OR labels[child] IS NULL
                    OR string_to_array(labels[root], ' ') && string_to_array(labels[child], ' ');
                IF joined AND root <> child AND judged[root] AND judged[child] THEN
                    FOR n IN 1..cardinality(apart) / 2 LOOP
                        joined := joined AND NOT (
                            apart[2 * n - 1] IN (root, child) AND apart[2 * n] IN (root, child));
                    END LOOP;
                END IF;
                IF joined AND root <> child THEN
                    parent[child] := root;
                    labels[root] := nullif(concat_ws(' ', labels[root], labels[child]), '');
                    IF judged[child] THEN
                        judged[root] := true;
                        apart := array_replace(apart, child, root);
                    END IF;
                END IF;
                EXIT WHEN joined;
            END LOOP;
            IF NOT joined AND step.b IS NULL THEN
                firsts := firsts || step.a;
            END IF;
        END LOOP;
        CLOSE steps;
        groups := parent;
        FOR n IN 1..cardinality(skus) LOOP
            root := n;
            WHILE parent[root] <> root LOOP
                root := parent[root];
            END LOOP;
            groups[n] := root;
        END LOOP;
        IF pass = 1 THEN
            units := groups;
            FOR step IN
                WITH member AS (
                    SELECT m.sku, m.unit
                    FROM unnest(skus, units) AS m(sku, unit))
                SELECT x.unit AS a, y.unit AS b
                FROM duplicate_verdict AS v
                JOIN member AS x ON x.sku = v.sku_a JOIN member AS y ON y.sku = v.sku_b
                WHERE NOT v.same AND x.unit <> y.unit
            LOOP
                apart := apart || ARRAY[step.a, step.b];
                judged[step.a] := true;
                judged[step.b] := true;
            END LOOP;
            FOR n IN 1..cardinality(skus) LOOP
                IF gtins[n] IS NOT NULL THEN
                    labels[units[n]] := concat_ws(' ', labels[units[n]], gtins[n]);
                END IF;
            END LOOP;
        END IF;
    END LOOP;
    RETURN QUERY
    WITH member AS MATERIALIZED (
        SELECT p.id, p.sku, p.year, p.category, m.key, m.gtin, m.mpn, m.item_group, m.unit, m.grp,
            first_value(m.n) OVER best AS kept, count(*) OVER (PARTITION BY m.grp) AS products, m.n
        FROM unnest(ids, keys, gtins, mpns, item_groups, units, groups) WITH ORDINALITY
            AS m(id, key, gtin, mpn, item_group, unit, grp, n)
        JOIN product AS p USING (id)
        WINDOW best AS (PARTITION BY m.grp ORDER BY p.year DESC NULLS LAST, p.sku COLLATE "C")
    ), compared AS MATERIALIZED (
        SELECT * FROM analytics._compared_pictures(active, ARRAY(
            SELECT member.id FROM member WHERE member.products > 1))
    ), measured AS MATERIALIZED (
        SELECT m.n, min(x.vec <=> y.vec) AS distance
        FROM member AS m JOIN member AS k ON k.n = m.kept
        JOIN compared AS x ON x.product_id = m.id JOIN compared AS y ON y.product_id = k.id
        GROUP BY m.n
    )
    SELECT m.id, m.sku, k.id, k.sku, m.products,
        CASE
            WHEN m.n = k.n THEN 'kept'
            WHEN m.unit = k.unit THEN 'verdict'
            WHEN m.gtin = k.gtin THEN 'gtin'
            WHEN m.mpn = k.mpn THEN 'mpn'
            WHEN m.item_group = k.item_group THEN 'item group'
            WHEN m.key = '' OR m.key <> k.key THEN 'another member'
            WHEN CASE
                WHEN measured.distance IS NULL THEN analytics._is_generic(m.key)
                ELSE measured.distance > analytics._same_product_cut(
                        active, CASE WHEN m.category = k.category THEN m.category END)
                    * CASE WHEN analytics._is_generic(m.key)
                        THEN analytics._generic_share(active) ELSE 1 END + 1e-6
            END THEN 'another member'
            WHEN m.year IS DISTINCT FROM k.year THEN 'another year'
            ELSE 'same words'
        END,
        measured.distance,
        string_to_array(labels[m.grp], ' ')
    FROM member AS m JOIN member AS k ON k.n = m.kept LEFT JOIN measured ON measured.n = m.n;
END $$;
COMMENT ON FUNCTION analytics.product_groups() IS
    'one row per product that has its words, a gtin, mpn or item group, or a verdict in common with'
    ' another: kept is the product that stands for its group, products counts the group (1: alone),'
    ' evidence and distance as in analytics.duplicate_groups, gtins those of its group';

CREATE OR REPLACE VIEW analytics.duplicate_groups AS
SELECT
    g.kept,
    g.sku,
    p.title,
    p.brand,
    p.category,
    p.year,
    p.price,
    p.currency,
    g.products,
    g.evidence,
    p.identity_key,
    g.distance
FROM analytics.product_groups() AS g JOIN public.product AS p ON p.id = g.product_id
WHERE g.products > 1;
COMMENT ON VIEW analytics.duplicate_groups IS
    'one row per product that is one with others: by a verdict, a gtin, mpn or item group that they'
    ' share, or equal identity_key and pictures that agree; kept is the newest of the group, then'
    ' the first by sku; products counts the group; evidence says why a product is in; distance is the'
    ' least cosine distance (0 to 2) between a picture of it and one of the kept product. Where one'
    ' has no picture to compare, words alone count unless they are generic. Left out: the typo rule,'
    ' and groups joined by it. `lookalike duplicates pairs` applies all rules';
COMMENT ON COLUMN analytics.duplicate_groups.kept IS
    'sku of the product that stands for the group';
COMMENT ON COLUMN analytics.duplicate_groups.sku IS 'name of the product';
COMMENT ON COLUMN analytics.duplicate_groups.title IS 'as it was loaded';
COMMENT ON COLUMN analytics.duplicate_groups.brand IS 'null: not known';
COMMENT ON COLUMN analytics.duplicate_groups.category IS 'null: not known';
COMMENT ON COLUMN analytics.duplicate_groups.year IS 'calendar year; null: not known';
COMMENT ON COLUMN analytics.duplicate_groups.price IS 'in units of currency; null: not known';
COMMENT ON COLUMN analytics.duplicate_groups.currency IS 'as it was loaded, such as EUR';
COMMENT ON COLUMN analytics.duplicate_groups.products IS 'number of products in the group';
COMMENT ON COLUMN analytics.duplicate_groups.evidence IS
    'why it is in: kept, verdict, gtin, mpn, item group, same words (the size may differ), another'
    ' year (by the column year), another member (not the kept product, but another is the same)';
COMMENT ON COLUMN analytics.duplicate_groups.identity_key IS
    'equal where all words but year and size agree; empty: the title says nothing';
COMMENT ON COLUMN analytics.duplicate_groups.distance IS
    'least cosine distance, 0 to 2, of its pictures to those of the kept one; null: none compared';

CREATE OR REPLACE VIEW analytics.similar_listings AS
WITH member AS MATERIALIZED (
    SELECT g.product_id, g.sku, g.kept, g.products, g.gtins, p.identity_key, p.title, p.brand,
        p.category, p.colour, p.year, p.price, p.currency
    FROM analytics.product_groups() AS g JOIN public.product AS p ON p.id = g.product_id
    WHERE p.identity_key <> ''
), wording AS (
    SELECT identity_key, count(DISTINCT kept) AS listings
    FROM member GROUP BY identity_key HAVING count(DISTINCT kept) > 1
), listing AS MATERIALIZED (
    SELECT member.*, wording.listings FROM member JOIN wording USING (identity_key)
), picture AS MATERIALIZED (
    SELECT l.product_id, l.identity_key, l.sku, l.kept, l.gtins, few.picture_id, e.vec
    FROM listing AS l
    LEFT JOIN public.model AS m ON m.active
    LEFT JOIN LATERAL (
        SELECT pp.picture_id FROM public.product_picture AS pp
        WHERE pp.product_id = l.product_id ORDER BY pp.position, pp.picture_id LIMIT 50
    ) AS few ON (
        SELECT count(DISTINCT others.identity_key) FROM (
            SELECT shown.identity_key FROM public.product_picture AS o
            JOIN public.product AS shown ON shown.id = o.product_id
            WHERE o.picture_id = few.picture_id LIMIT 1000
        ) AS others) <= 8
    LEFT JOIN public.embedding AS e ON e.model_id = m.id AND e.picture_id = few.picture_id
), nearest AS (
    SELECT DISTINCT ON (a.kept, a.identity_key) a.kept, a.identity_key, a.sku, b.sku AS other,
        b.kept AS other_kept, a.vec <=> b.vec AS distance, NOT a.gtins && b.gtins AS other_gtin
    FROM picture AS a JOIN picture AS b ON b.identity_key = a.identity_key AND b.kept <> a.kept
    ORDER BY a.kept, a.identity_key, round((a.vec <=> b.vec)::numeric, 6),
        least(a.sku COLLATE "C", b.sku), greatest(a.sku COLLATE "C", b.sku)
)
SELECT
    n.sku,
    l.title,
    l.brand,
    l.category,
    l.colour,
    l.year,
    l.price,
    l.currency,
    n.other AS nearest,
    n.distance,
    CASE
        WHEN n.other_gtin THEN 'another gtin'
        WHEN EXISTS (
            SELECT FROM public.duplicate_verdict AS v
            JOIN member AS a ON a.sku = v.sku_a JOIN member AS b ON b.sku = v.sku_b
            WHERE NOT v.same
                AND (a.kept, b.kept) IN ((n.kept, n.other_kept), (n.other_kept, n.kept))
        ) THEN 'verdict'
        WHEN n.distance IS NULL THEN 'no picture to compare'
        ELSE 'other pictures'
    END AS reason,
    l.kept,
    l.products,
    l.listings,
    l.identity_key
FROM nearest AS n JOIN listing AS l ON l.sku = n.sku;
COMMENT ON VIEW analytics.similar_listings IS
    'one row per group of products (or single product) whose words are also those of another group'
    ' that is not the same product: the two members that are nearest to each other, their distance'
    ' (cosine, 0 to 2) and why they are two; listings counts the groups with these words';
COMMENT ON COLUMN analytics.similar_listings.sku IS
    'the product of the group that is nearest to another group';
COMMENT ON COLUMN analytics.similar_listings.title IS 'as it was loaded';
COMMENT ON COLUMN analytics.similar_listings.brand IS 'null: not known';
COMMENT ON COLUMN analytics.similar_listings.category IS 'null: not known';
COMMENT ON COLUMN analytics.similar_listings.colour IS 'null: not known';
COMMENT ON COLUMN analytics.similar_listings.year IS 'calendar year; null: not known';
COMMENT ON COLUMN analytics.similar_listings.price IS 'in units of currency; null: not known';
COMMENT ON COLUMN analytics.similar_listings.currency IS 'as it was loaded, such as EUR';
COMMENT ON COLUMN analytics.similar_listings.nearest IS
    'sku of the nearest product of another group with the same words';
COMMENT ON COLUMN analytics.similar_listings.distance IS
    'least cosine distance, 0 to 2, of the pictures of the two; null: none to compare';
COMMENT ON COLUMN analytics.similar_listings.reason IS
    'why they are two: other pictures, no picture to compare, another gtin or verdict';
COMMENT ON COLUMN analytics.similar_listings.kept IS 'sku of the product that stands for the group';
COMMENT ON COLUMN analytics.similar_listings.products IS 'number of products in the group';
COMMENT ON COLUMN analytics.similar_listings.listings IS 'number of groups with these words';
COMMENT ON COLUMN analytics.similar_listings.identity_key IS
    'equal where all words but year and size agree';
