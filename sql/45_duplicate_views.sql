-- Duplicate groups and similar listings for analysts, from `analytics.product_groups`.

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
COMMENT ON COLUMN analytics.duplicate_groups.sku IS 'name of the product';
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
COMMENT ON COLUMN analytics.similar_listings.colour IS 'null: not known';
COMMENT ON COLUMN analytics.similar_listings.nearest IS
    'sku of the nearest product of another group with the same words';
COMMENT ON COLUMN analytics.similar_listings.distance IS
    'least cosine distance, 0 to 2, of the pictures of the two; null: none to compare';
COMMENT ON COLUMN analytics.similar_listings.reason IS
    'why they are two: other pictures, no picture to compare, another gtin or verdict';
COMMENT ON COLUMN analytics.similar_listings.listings IS 'number of groups with these words';
COMMENT ON COLUMN analytics.similar_listings.identity_key IS
    'equal where all words but year and size agree';

-- The columns that both views have.
DO $$
DECLARE
    view text;
    described record;
BEGIN
    FOREACH view IN ARRAY '{duplicate_groups,similar_listings}'::text[] LOOP
        FOR described IN
            SELECT * FROM (VALUES
                ('title', 'as it was loaded'),
                ('brand', 'null: not known'),
                ('category', 'null: not known'),
                ('year', 'calendar year; null: not known'),
                ('price', 'in units of currency; null: not known'),
                ('currency', 'as it was loaded, such as EUR'),
                ('products', 'number of products in the group'),
                ('kept', 'sku of the product that stands for the group')
            ) AS d(name, text)
        LOOP
            EXECUTE format('COMMENT ON COLUMN analytics.%I.%I IS %L', view, described.name,
                described.text);
        END LOOP;
    END LOOP;
END $$;
