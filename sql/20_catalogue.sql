-- Views of the catalogue: products, pictures, embeddings, coverage and loads.

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
COMMENT ON COLUMN analytics.products.sku IS 'name of the product, unique';
COMMENT ON COLUMN analytics.products.title IS 'as it was loaded; empty: none';
COMMENT ON COLUMN analytics.products.brand IS 'as it was loaded; null: not known';
COMMENT ON COLUMN analytics.products.category IS 'as it was loaded; null: not known';
COMMENT ON COLUMN analytics.products.colour IS 'as it was loaded; null: not known';
COMMENT ON COLUMN analytics.products.year IS 'calendar year; null: not known';
COMMENT ON COLUMN analytics.products.price IS 'in units of currency; null: not known';
COMMENT ON COLUMN analytics.products.currency IS 'as it was loaded, such as EUR';
COMMENT ON COLUMN analytics.products.attributes IS 'all other columns of the source, an object';
COMMENT ON COLUMN analytics.products.pictures IS 'how many pictures it shows';
COMMENT ON COLUMN analytics.products.embedded_pictures IS
    'how many of them the active model has embedded';
COMMENT ON COLUMN analytics.products.words IS
    'title, brand, category and colour without accents, for @@';
COMMENT ON COLUMN analytics.products.identity_key IS
    'equal where all words but year and size agree; empty: the title says nothing';
COMMENT ON COLUMN analytics.products.created_at IS 'when it was first loaded';
COMMENT ON COLUMN analytics.products.updated_at IS 'when it last changed';

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
COMMENT ON COLUMN analytics.pictures.sku IS 'the product that shows it';
COMMENT ON COLUMN analytics.pictures.position IS 'place among the pictures of the product, from 0';
COMMENT ON COLUMN analytics.pictures.picture IS 'sha256 of the file, in hexadecimal';
COMMENT ON COLUMN analytics.pictures.uri IS 'where it was loaded from, as the source named it';
COMMENT ON COLUMN analytics.pictures.width IS 'pixels of the file, before it was made small';
COMMENT ON COLUMN analytics.pictures.height IS 'pixels of the file, before it was made small';
COMMENT ON COLUMN analytics.pictures.thumbnail IS 'JPEG, at most 20 KB';
COMMENT ON COLUMN analytics.pictures.embedded IS 'whether the active model has an embedding of it';

CREATE OR REPLACE VIEW analytics.picture_colours AS
SELECT
    p.sku,
    pp.position,
    encode(i.sha256, 'hex') AS picture,
    named.colour,
    (get_byte(c.shares, named.place::integer - 1) / 255.0)::real AS share
FROM public.picture_colours AS c
JOIN public.picture AS i ON i.id = c.picture_id
JOIN public.product_picture AS pp ON pp.picture_id = c.picture_id
JOIN public.product AS p ON p.id = pp.product_id
CROSS JOIN unnest(ARRAY['red', 'orange', 'yellow', 'green', 'blue', 'light blue', 'navy', 'purple',
    'lilac', 'pink', 'brown', 'beige', 'white', 'grey', 'black', 'teal', 'burgundy', 'olive'])
    WITH ORDINALITY AS named (colour, place)
WHERE get_byte(c.shares, named.place::integer - 1) > 0;
COMMENT ON VIEW analytics.picture_colours IS
    'one row per product, picture it shows and basic colour that is visible in it; share of what'
    ' the picture shows, without a background that can be told from it, 0 to 1';
COMMENT ON COLUMN analytics.picture_colours.sku IS 'the product that shows the picture';
COMMENT ON COLUMN analytics.picture_colours.position IS
    'place among the pictures of the product, from 0';
COMMENT ON COLUMN analytics.picture_colours.picture IS 'sha256 of the file, in hexadecimal';
COMMENT ON COLUMN analytics.picture_colours.colour IS 'one of 18 basic names, in English';
COMMENT ON COLUMN analytics.picture_colours.share IS
    'of the visible product, 0 to 1; all colours of a picture add up to about 1';

-- security_barrier: otherwise a condition of the query could be evaluated on vectors of another
-- model, with another dimension.
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
COMMENT ON COLUMN analytics.embeddings.sku IS 'the product that shows the picture';
COMMENT ON COLUMN analytics.embeddings.brand IS 'of the product; null: not known';
COMMENT ON COLUMN analytics.embeddings.category IS 'of the product; null: not known';
COMMENT ON COLUMN analytics.embeddings.position IS
    'place among the pictures of the product, from 0';
COMMENT ON COLUMN analytics.embeddings.picture IS 'sha256 of the file, in hexadecimal';
COMMENT ON COLUMN analytics.embeddings.model IS 'name of the active model';
COMMENT ON COLUMN analytics.embeddings.embedding IS
    'of unit length, float16; <=> of two is their cosine distance, 0 to 2';

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
COMMENT ON COLUMN analytics.coverage.brand IS 'null: not known';
COMMENT ON COLUMN analytics.coverage.category IS 'null: not known';
COMMENT ON COLUMN analytics.coverage.year IS 'calendar year; null: not known';
COMMENT ON COLUMN analytics.coverage.products IS 'number of products';
COMMENT ON COLUMN analytics.coverage.with_picture IS 'products that show a picture';
COMMENT ON COLUMN analytics.coverage.with_embedding IS 'products that a search by picture can find';
COMMENT ON COLUMN analytics.coverage.with_title IS 'products with a title';
COMMENT ON COLUMN analytics.coverage.with_colour IS 'products with a colour';
COMMENT ON COLUMN analytics.coverage.with_price IS 'products with a price';
COMMENT ON COLUMN analytics.coverage.pictures IS 'pictures, each as often as products show it';
COMMENT ON COLUMN analytics.coverage.embedded_pictures IS
    'those of them that the active model has embedded';
COMMENT ON COLUMN analytics.coverage.distinct_words IS
    'products, once where they differ in year or size only';

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
FROM public.ingest_run AS r
WHERE r.kind = 'ingest';
COMMENT ON VIEW analytics.loads IS
    'one row per load of a source, with the number of its rows by what became of them (null: not'
    ' finished); which file it was is not shown';
COMMENT ON COLUMN analytics.loads.id IS 'number of the load';
COMMENT ON COLUMN analytics.loads.state IS 'running, finished or failed';
COMMENT ON COLUMN analytics.loads.started_at IS 'when it began';
COMMENT ON COLUMN analytics.loads.finished_at IS 'when it ended; null: it has not';
COMMENT ON COLUMN analytics.loads.added IS 'rows that became new products; null: not finished';
COMMENT ON COLUMN analytics.loads.updated IS 'rows that changed a product; null: not finished';
COMMENT ON COLUMN analytics.loads.unchanged IS 'rows that changed nothing; null: not finished';
COMMENT ON COLUMN analytics.loads.rejected IS 'rows that were refused; null: not finished';

CREATE OR REPLACE VIEW analytics.rejects AS
SELECT r.run_id AS load, r.line, r.sku, r.image, r.reason FROM public.ingest_reject AS r;
COMMENT ON VIEW analytics.rejects IS
    'one row per row of a source that was refused, with its line from 1 and the reason';
COMMENT ON COLUMN analytics.rejects.load IS 'number of the load';
COMMENT ON COLUMN analytics.rejects.line IS 'of the source, from 1; null: not of a line';
COMMENT ON COLUMN analytics.rejects.sku IS 'of the row; null: it has none';
COMMENT ON COLUMN analytics.rejects.image IS
    'the picture that was the reason, as the source names it; null: none was';
COMMENT ON COLUMN analytics.rejects.reason IS 'why it was refused';
