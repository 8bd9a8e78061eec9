-- Groups of products that are one; `app/duplicates/folding.py` forms the same groups, and has the
-- rule `typo` besides.

-- Joins in four passes: verdicts; what gtins do not keep apart, which are shared gtins and the
-- variants of an item group; the other identifiers, then agreeing pictures, the nearest first;
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
    FOR pass IN 1..4 LOOP
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
                    FROM unnest(gtins, item_groups) WITH ORDINALITY AS m(g, i, n),
                        LATERAL (VALUES (1, m.g), (2, m.i)) AS own(kind, value)
                    WHERE own.value IS NOT NULL
                        AND (own.kind = 1 OR split_part(own.value, '|', 2) <> '')
                  UNION ALL
                    SELECT NULL, near.a, near.b, round(near.distance::numeric, 6)
                    FROM analytics._near_listings(active, ids, ARRAY(
                        SELECT CASE WHEN split_part(m.i, '|', 2) = '' THEN md5(m.i) ELSE '' END
                        FROM unnest(item_groups) WITH ORDINALITY AS m(i, n) ORDER BY m.n
                    ), NULL) AS near
                ) AS s
                ORDER BY s.class NULLS LAST, s.distance, s.a, s.b;
        ELSIF pass = 3 THEN
            OPEN steps FOR
                WITH member AS (
                    SELECT m.key, m.gtin, m.grp, m.n, l.label, l.judged
                    FROM unnest(keys, gtins, groups) WITH ORDINALITY AS m(key, gtin, grp, n)
                    JOIN unnest(labels, judged) WITH ORDINALITY AS l(label, judged, n)
                        ON l.n = m.grp
                ), mixed AS (
                    SELECT grp FROM member GROUP BY grp HAVING count(DISTINCT key) > 1
                ), of_key AS (
                    -- Alone: no set of its products has products of other keys.
                    SELECT key, count(*) AS products,
                        bool_and(mixed.grp IS NULL) AS alone,
                        bool_or(label IS NOT NULL OR judged) AS constrained,
                        bool_or(label LIKE '% %' OR judged) AS constrained_twice
                    FROM member LEFT JOIN mixed USING (grp) GROUP BY key
                ), part AS MATERIALIZED (
                    SELECT array_agg(CASE WHEN free THEN '' ELSE key END ORDER BY n) AS compared,
                        array_agg(CASE WHEN free THEN key ELSE '' END ORDER BY n) AS reached,
                        array_agg(CASE WHEN alone AND NOT constrained_twice THEN gtin END
                            ORDER BY n) AS gtins
                    FROM (
                        SELECT member.key, member.gtin, member.n, alone, constrained_twice,
                            alone AND NOT constrained AND products > 20 AS free
                        FROM member JOIN of_key USING (key)
                    ) AS each
                )
                SELECT s.class, s.a, s.b
                FROM (
                    SELECT dense_rank() OVER (
                            ORDER BY own.kind, own.value COLLATE "C")::integer AS class,
                        m.n::integer AS a, NULL::integer AS b, NULL::numeric AS distance
                    FROM unnest(mpns, item_groups) WITH ORDINALITY AS m(p, i, n),
                        LATERAL (VALUES (1, m.p), (2, m.i)) AS own(kind, value)
                    WHERE own.value IS NOT NULL
                        AND (own.kind = 1 OR split_part(own.value, '|', 2) = '')
                  UNION ALL
                    SELECT NULL, near.a, near.b, round(near.distance::numeric, 6)
                    FROM part, analytics._near_listings(active, ids, part.compared, part.gtins)
                        AS near
                  UNION ALL
                    SELECT NULL, reached.a, reached.b, 0
                    FROM part, analytics._reached_listings(active, ids, part.reached) AS reached
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
                    IF labels[child] IS DISTINCT FROM labels[root] THEN
                        labels[root] := nullif(concat_ws(' ', labels[root], labels[child]), '');
                    END IF;
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
        ELSIF pass = 2 THEN
            FOR step IN
                SELECT m.grp, string_agg(DISTINCT m.gtin, ' ') AS label
                FROM unnest(groups, gtins) AS m(grp, gtin) WHERE m.gtin IS NOT NULL GROUP BY m.grp
            LOOP
                labels[step.grp] := step.label;
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
