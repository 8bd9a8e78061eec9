-- Duplicate products by equal identity keys and verdicts; `app/duplicates/rules.py` has all rules.
--
-- As there, verdicts of "same" first join skus into units. A unit, or a single product, then holds
-- the identity keys of its products, except the keys of an earlier unit from which a verdict of
-- "different" separates it.

CREATE OR REPLACE VIEW analytics.duplicate_groups AS
WITH RECURSIVE same AS (
    SELECT sku_a AS sku, sku_b AS other FROM public.duplicate_verdict WHERE same
    UNION ALL
    SELECT sku_b, sku_a FROM public.duplicate_verdict WHERE same
), reached AS (
    SELECT sku, other FROM same
    UNION
    SELECT r.sku, s.other FROM reached AS r JOIN same AS s ON s.sku = r.other
), unit AS (
    SELECT sku, min(least(sku COLLATE "C", other COLLATE "C")) AS unit FROM reached GROUP BY sku
), member AS (
    SELECT p.id, p.sku, coalesce(unit.unit, p.sku) AS unit, p.identity_key AS key
    FROM public.product AS p LEFT JOIN unit USING (sku)
), apart AS (
    SELECT coalesce(a.unit, v.sku_a) AS one, coalesce(b.unit, v.sku_b) AS other
    FROM public.duplicate_verdict AS v
    LEFT JOIN unit AS a ON a.sku = v.sku_a
    LEFT JOIN unit AS b ON b.sku = v.sku_b
    WHERE NOT v.same
), parted AS (
    SELECT one, other FROM apart UNION SELECT other, one FROM apart
), held AS (
    SELECT unit, key FROM member WHERE key <> '' GROUP BY unit, key
), holds AS MATERIALIZED (
    SELECT unit, key FROM held
    EXCEPT
    SELECT later.unit, later.key
    FROM parted
    JOIN held AS later ON later.unit = parted.one
    JOIN held AS earlier ON earlier.unit = parted.other AND earlier.key = later.key
    WHERE earlier.unit COLLATE "C" < later.unit COLLATE "C"
), bridge AS (
    SELECT a.key, b.key AS other
    FROM (SELECT DISTINCT unit FROM unit) AS judged
    JOIN holds AS a USING (unit)
    JOIN holds AS b USING (unit)
), linked AS (
    SELECT key, other FROM bridge
    UNION
    SELECT l.key, b.other FROM linked AS l JOIN bridge AS b ON b.key = l.other
), root AS (
    SELECT key, min(other COLLATE "C") AS root FROM linked GROUP BY key
), place AS (
    SELECT holds.unit, min(coalesce(root.root, holds.key) COLLATE "C") AS name
    FROM holds LEFT JOIN root USING (key)
    GROUP BY holds.unit
), grouped AS (
    -- The space keeps the names of units without a key apart from keys, which never begin with one.
    SELECT member.*, coalesce(place.name, ' ' || member.unit) AS name
    FROM member LEFT JOIN place USING (unit)
), several AS (
    SELECT g.*, p.title, p.brand, p.category, p.year, p.price, p.currency,
        first_value(g.id) OVER best AS kept_id,
        first_value(g.sku) OVER best AS kept,
        first_value(g.key) OVER best AS kept_key,
        first_value(p.year) OVER best AS kept_year,
        count(*) OVER (PARTITION BY g.name) AS products
    FROM grouped AS g JOIN public.product AS p USING (id)
    WINDOW best AS (PARTITION BY g.name ORDER BY p.year DESC NULLS LAST, g.sku COLLATE "C")
)
SELECT
    s.kept,
    s.sku,
    s.title,
    s.brand,
    s.category,
    s.year,
    s.price,
    s.currency,
    s.products,
    CASE
        WHEN s.sku = s.kept THEN 'kept'
        WHEN s.key = '' OR s.key <> s.kept_key THEN 'verdict'
        WHEN s.year IS DISTINCT FROM s.kept_year THEN 'another year'
        ELSE 'same words'
    END AS evidence,
    s.key AS identity_key,
    (
        SELECT min(a.vec <=> b.vec)
        FROM public.model AS m
        JOIN public.product_picture AS pa ON pa.product_id = s.kept_id
        JOIN public.product_picture AS pb ON pb.product_id = s.id
        JOIN public.embedding AS a ON a.model_id = m.id AND a.picture_id = pa.picture_id
        JOIN public.embedding AS b ON b.model_id = m.id AND b.picture_id = pb.picture_id
        WHERE m.active
    ) AS distance
FROM several AS s
WHERE s.products > 1;
COMMENT ON VIEW analytics.duplicate_groups IS
    'one row per product that is one with others, by equal identity_key corrected by verdicts; kept'
    ' is the newest of the group, then the first by sku; products counts the group; evidence says why'
    ' a product is in: same words (the size may differ), another year (by the column year), verdict;'
    ' distance is the least cosine distance (0 to 2) between a picture of it and one of the kept'
    ' product, which decides nothing. Left out: the typo rule, and groups joined by it; of products'
    ' that a verdict tells apart the first by sku stays with those of equal words; where verdicts'
    ' join two keys, a verdict between others of them is not looked at.'
    ' `lookalike duplicates pairs` applies all rules';
COMMENT ON COLUMN analytics.duplicate_groups.kept IS 'sku of the product that stands for the group';
COMMENT ON COLUMN analytics.duplicate_groups.sku IS 'name of the product';
COMMENT ON COLUMN analytics.duplicate_groups.title IS 'as it was loaded';
COMMENT ON COLUMN analytics.duplicate_groups.brand IS 'null: not known';
COMMENT ON COLUMN analytics.duplicate_groups.category IS 'null: not known';
COMMENT ON COLUMN analytics.duplicate_groups.year IS 'calendar year; null: not known';
COMMENT ON COLUMN analytics.duplicate_groups.price IS 'in units of currency; null: not known';
COMMENT ON COLUMN analytics.duplicate_groups.currency IS 'as it was loaded, such as EUR';
COMMENT ON COLUMN analytics.duplicate_groups.products IS 'number of products in the group';
COMMENT ON COLUMN analytics.duplicate_groups.evidence IS
    'why it is in: kept, same words, another year or verdict';
COMMENT ON COLUMN analytics.duplicate_groups.identity_key IS
    'equal where all words but year and size agree; empty: the title says nothing';
COMMENT ON COLUMN analytics.duplicate_groups.distance IS
    'least cosine distance, 0 to 2, of its pictures to those of the kept one; null: not embedded';
