-- Pairs of products: near-duplicate pictures, and the comparison of two products.

CREATE OR REPLACE FUNCTION analytics._pgvector_index(model integer)
RETURNS TABLE (slot integer, probes integer)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT n, substring(found.comment FROM '"probes": ([0-9]+)')::integer
    FROM generate_series(1, 2) AS n
    JOIN pg_index AS i
        ON i.indexrelid = to_regclass('embedding_m' || model || '_ivf' || n || '_idx')
    CROSS JOIN obj_description(i.indexrelid, 'pg_class') AS found(comment)
    WHERE i.indisvalid
        AND starts_with(found.comment, '{"file": ' || pg_relation_filenode(i.indexrelid) || ',')
$$;
COMMENT ON FUNCTION analytics._pgvector_index(integer) IS
    'pgvector''s index of a model if it is valid and was measured, and how many lists to probe';

CREATE OR REPLACE FUNCTION analytics.near_duplicate_pairs(
    max_distance double precision DEFAULT 0.05,
    brand text[] DEFAULT NULL,
    category text[] DEFAULT NULL,
    neighbours integer DEFAULT 20,
    max_shown_by integer DEFAULT 20
) RETURNS TABLE (
    sku_a text,
    sku_b text,
    distance double precision,
    same_words boolean,
    same_picture boolean,
    complete boolean
)
LANGUAGE plpgsql STABLE ROWS 1000 SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    model public.model := analytics._active_model();
    -- One more, because the nearest neighbour of a picture is the picture itself.
    near integer := least(neighbours, 900) + 1;
    many boolean;
    slot integer;
    probes integer;
    probes_before text;
    scan_before text;
BEGIN
    PERFORM analytics._check(neighbours, max_distance);
    PERFORM analytics._check(max_shown_by, 0);
    PERFORM analytics._check_lists(to_jsonb(brand), to_jsonb(category));
    IF neighbours > 900 THEN
        RAISE EXCEPTION 'The index was asked for % neighbours.', neighbours
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Ask for at most 900.';
    END IF;
    SELECT i.slot, i.probes INTO slot, probes FROM analytics._pgvector_index(model.id) AS i;
    IF slot IS NULL THEN
        -- Counted, because during a first load the planner has no useful estimate.
        EXECUTE format('SELECT count(*) > 20000 FROM (SELECT FROM %I LIMIT 20001) AS few',
            'embedding_m' || model.id) INTO many;
        IF many THEN
            RAISE EXCEPTION 'pgvector''s index of % is missing.', model.name
                USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = 'The worker builds it, or lookalike check --repair; lookalike status'
                        ' says more. Without it this would take hours.';
        END IF;
    END IF;
    -- Not as SET clauses of the function: while pgvector's library is not loaded, as in a restore,
    -- only a superuser could create such a function. The first value of a pgvector type loads the
    -- library.
    PERFORM '[1]'::vector;
    probes_before := current_setting('ivfflat.probes');
    scan_before := current_setting('ivfflat.iterative_scan');
    PERFORM set_config('ivfflat.probes', coalesce(probes, 1)::text, true),
        set_config('ivfflat.iterative_scan', 'relaxed_order', true);
    -- The planner uses the index of a partition only for its bare operator in ascending order with a
    -- limit, and with the exact cast and condition of the index; hence the literal numbers.
    RETURN QUERY EXECUTE format($query$
        WITH asked AS MATERIALIZED (
            SELECT DISTINCT pp.picture_id
            FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
            WHERE ($2 IS NULL OR p.brand = ANY($2)) AND ($3 IS NULL OR p.category = ANY($3))
        ), found AS MATERIALIZED (
            SELECT a.picture_id AS a, near.picture_id AS b, near.distance,
                count(*) OVER (PARTITION BY a.picture_id) < $4 AS complete
            FROM asked
            JOIN %1$I AS a USING (picture_id)
            CROSS JOIN LATERAL (
                SELECT n.picture_id,
                    n.vec::halfvec(%2$s) <=> a.vec::halfvec(%2$s) AS distance
                FROM %1$I AS n
                WHERE n.picture_id <> -%4$s
                ORDER BY n.vec::halfvec(%2$s) <=> a.vec::halfvec(%2$s)
                LIMIT %3$s
            ) AS near
            WHERE near.distance <= $1
        ), pictures AS (
            SELECT least(a, b) AS a, greatest(a, b) AS b, min(f.distance) AS distance,
                bool_and(f.complete) AS complete
            FROM found AS f WHERE a <> b GROUP BY 1, 2
          UNION ALL
            SELECT picture_id, picture_id, 0, coalesce(bool_and(f.complete), true)
            FROM asked LEFT JOIN found AS f ON f.a = picture_id GROUP BY picture_id
        ), shown AS MATERIALIZED (
            SELECT pp.product_id, pp.picture_id
            FROM product_picture AS pp
            JOIN (
                SELECT o.picture_id FROM product_picture AS o
                GROUP BY o.picture_id HAVING count(*) <= $5
            ) AS few USING (picture_id)
        ), pairs AS (
            SELECT least(x.product_id, y.product_id) AS x, greatest(x.product_id, y.product_id) AS y,
                min(p.distance) AS distance, bool_or(p.a = p.b) AS shared,
                bool_and(p.complete) AS complete
            FROM pictures AS p
            JOIN shown AS x ON x.picture_id = p.a
            JOIN shown AS y ON y.picture_id = p.b
            WHERE x.product_id <> y.product_id
            GROUP BY 1, 2
        )
        SELECT least(a.sku COLLATE "C", b.sku), greatest(a.sku COLLATE "C", b.sku), p.distance,
            a.identity_key = b.identity_key AND a.identity_key <> '', p.shared, p.complete
        FROM pairs AS p
        JOIN product AS a ON a.id = p.x
        JOIN product AS b ON b.id = p.y
        WHERE ($2 IS NULL OR a.brand = ANY($2)) AND ($3 IS NULL OR a.category = ANY($3))
            OR ($2 IS NULL OR b.brand = ANY($2)) AND ($3 IS NULL OR b.category = ANY($3))
        ORDER BY p.distance, 1, 2
    $query$, 'embedding_m' || model.id, model.dim, near, coalesce(slot, 0))
    USING max_distance, brand, category, near, max_shown_by;
    PERFORM set_config('ivfflat.probes', probes_before, true),
        set_config('ivfflat.iterative_scan', scan_before, true);
END $$;
COMMENT ON FUNCTION analytics.near_duplicate_pairs(
    double precision, text[], text[], integer, integer
) IS
    'pairs of products that show pictures no farther apart than max_distance (cosine, 0 to 2), the'
    ' nearest first, each once with sku_a before sku_b; brand, category: one of the two at least'
    ' passes. Approximate: for each picture pgvector''s index is asked for its nearest neighbours (1 to'
    ' 900), so pairs are missed that are among the nearest of neither side, and now and then one'
    ' that is; complete is false where as many as neighbours lay within the distance, ask with more.'
    ' A picture that more than max_shown_by products show (a placeholder) makes no pairs. A minute'
    ' or more for 100,000 products';

CREATE OR REPLACE FUNCTION analytics.compare(sku_a text, sku_b text)
RETURNS TABLE (
    distance double precision,
    similarity double precision,
    shared_pictures bigint,
    same_words boolean,
    differs text[],
    words_of_both text[],
    words_of_a text[],
    words_of_b text[]
)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1 SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    active integer := (analytics._active_model()).id;
    id_a bigint := analytics._product_id(sku_a);
    id_b bigint := analytics._product_id(sku_b);
BEGIN
    RETURN QUERY
    WITH pictures AS (
        SELECT min(x.vec <=> y.vec) AS nearest,
            count(*) FILTER (WHERE pa.picture_id = pb.picture_id) AS shared
        FROM product_picture AS pa
        JOIN product_picture AS pb ON pb.product_id = id_b
        LEFT JOIN embedding AS x ON x.model_id = active AND x.picture_id = pa.picture_id
        LEFT JOIN embedding AS y ON y.model_id = active AND y.picture_id = pb.picture_id
        WHERE pa.product_id = id_a
    )
    SELECT p.nearest, 1 - p.nearest, p.shared,
        a.identity_key = b.identity_key AND a.identity_key <> '',
        array_remove(ARRAY[
            CASE WHEN a.title <> b.title THEN 'title' END,
            CASE WHEN a.brand IS DISTINCT FROM b.brand THEN 'brand' END,
            CASE WHEN a.category IS DISTINCT FROM b.category THEN 'category' END,
            CASE WHEN a.colour IS DISTINCT FROM b.colour THEN 'colour' END,
            CASE WHEN a.year IS DISTINCT FROM b.year THEN 'year' END,
            CASE WHEN a.price IS DISTINCT FROM b.price THEN 'price' END,
            CASE WHEN a.currency IS DISTINCT FROM b.currency THEN 'currency' END
        ], NULL),
        ARRAY(SELECT unnest(tsvector_to_array(a.words))
              INTERSECT SELECT unnest(tsvector_to_array(b.words)) ORDER BY 1),
        ARRAY(SELECT unnest(tsvector_to_array(a.words))
              EXCEPT SELECT unnest(tsvector_to_array(b.words)) ORDER BY 1),
        ARRAY(SELECT unnest(tsvector_to_array(b.words))
              EXCEPT SELECT unnest(tsvector_to_array(a.words)) ORDER BY 1)
    FROM pictures AS p, product AS a, product AS b
    WHERE a.id = id_a AND b.id = id_b;
END $$;
COMMENT ON FUNCTION analytics.compare(text, text) IS
    'one row: distance (cosine, 0 to 2; null: one has no embedding) and similarity of the two'
    ' pictures nearest to each other, how many pictures they share, whether all words but year and'
    ' size agree, which columns differ, and the words (title, brand, category, colour; lower case,'
    ' without accents) of both, of the first only, of the second only';
