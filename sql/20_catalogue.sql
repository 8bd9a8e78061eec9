-- Views of the catalogue: products, what they show, and how complete they are.

CREATE OR REPLACE VIEW analytics.products AS
SELECT
    p.sku,
    p.title,
    p.brand,
    p.category,
    p.colour,
    p.year,
    p.price,
    p.currency,
    p.attributes,
    count(pp.picture_id) AS pictures,
    count(e.picture_id) AS embedded_pictures,
    p.words,
    p.identity_key,
    p.created_at,
    p.updated_at
FROM public.product AS p
LEFT JOIN public.product_picture AS pp ON pp.product_id = p.id
LEFT JOIN public.model AS m ON m.active
LEFT JOIN public.embedding AS e ON e.model_id = m.id AND e.picture_id = pp.picture_id
GROUP BY p.id;
COMMENT ON VIEW analytics.products IS
    'one row per product; embedded_pictures counts those the active model has an embedding of,'
    ' price is in units of currency, words is its full text without accents, identity_key is equal'
    ' where all words but year and size agree (empty: the title says nothing)';

CREATE OR REPLACE VIEW analytics.pictures AS
SELECT
    p.sku,
    pp.position,
    encode(i.sha256, 'hex') AS picture,
    pp.uri,
    i.width,
    i.height,
    i.thumbnail,
    e.picture_id IS NOT NULL AS embedded
FROM public.product AS p
JOIN public.product_picture AS pp ON pp.product_id = p.id
JOIN public.picture AS i ON i.id = pp.picture_id
LEFT JOIN public.model AS m ON m.active
LEFT JOIN public.embedding AS e ON e.model_id = m.id AND e.picture_id = i.id;
COMMENT ON VIEW analytics.pictures IS
    'one row per product and picture it shows; position from 0, picture is the sha256 of the file'
    ' (products that share it show the same file), width and height in pixels before it was made'
    ' small, thumbnail is a JPEG, embedded: the active model has an embedding of it';

-- A barrier: else a comparison of the asker could meet vectors of another model, of another dimension.
CREATE OR REPLACE VIEW analytics.embeddings WITH (security_barrier) AS
SELECT
    p.sku,
    p.brand,
    p.category,
    pp.position,
    encode(i.sha256, 'hex') AS picture,
    m.name AS model,
    e.vec AS embedding
FROM public.model AS m
JOIN public.embedding AS e ON e.model_id = m.id
JOIN public.picture AS i ON i.id = e.picture_id
JOIN public.product_picture AS pp ON pp.picture_id = i.id
JOIN public.product AS p ON p.id = pp.product_id
WHERE m.active;
COMMENT ON VIEW analytics.embeddings IS
    'one row per product and picture the active model has embedded; embedding is of unit length in'
    ' float16, compare two with <=> (cosine distance, 0 to 2); picture is the sha256 of the file';

CREATE OR REPLACE VIEW analytics.coverage AS
SELECT
    brand,
    category,
    year,
    count(*) AS products,
    count(*) FILTER (WHERE pictures > 0) AS with_picture,
    count(*) FILTER (WHERE embedded_pictures > 0) AS with_embedding,
    count(*) FILTER (WHERE title <> '') AS with_title,
    count(*) FILTER (WHERE colour IS NOT NULL) AS with_colour,
    count(*) FILTER (WHERE price IS NOT NULL) AS with_price,
    coalesce(sum(pictures), 0)::bigint AS pictures,
    coalesce(sum(embedded_pictures), 0)::bigint AS embedded_pictures,
    count(DISTINCT nullif(identity_key, '')) AS distinct_words
FROM analytics.products
GROUP BY brand, category, year;
COMMENT ON VIEW analytics.coverage IS
    'one row per brand, category and year (null: not known) with numbers of products; with_embedding'
    ' counts those a search can find, pictures counts one as often as products show it,'
    ' distinct_words counts products once that differ in year or size only; all others add up';

CREATE OR REPLACE VIEW analytics.loads AS
SELECT
    r.id,
    r.state,
    r.started_at,
    r.finished_at,
    (r.report ->> 'added')::bigint AS added,
    (r.report ->> 'updated')::bigint AS updated,
    (r.report ->> 'unchanged')::bigint AS unchanged,
    (r.report ->> 'rejected')::bigint AS rejected
FROM public.ingest_run AS r;
COMMENT ON VIEW analytics.loads IS
    'one row per load of a source, with the number of its rows by what became of them (null: not'
    ' finished); which file it was is not shown';

CREATE OR REPLACE VIEW analytics.rejects AS
SELECT r.run_id AS load, r.line, r.sku, r.image, r.reason FROM public.ingest_reject AS r;
COMMENT ON VIEW analytics.rejects IS
    'one row per row of a source that was refused, with its line from 1 and the reason';
