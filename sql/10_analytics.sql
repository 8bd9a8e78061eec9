-- What analysts read. Replayed after every migration, so each statement may run again and again.

CREATE SCHEMA IF NOT EXISTS analytics;
COMMENT ON SCHEMA analytics IS 'views for analysts; the tables behind them may change, these stay';

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
    count(e.picture_id) AS embedded_pictures
FROM public.product AS p
LEFT JOIN public.product_picture AS pp ON pp.product_id = p.id
LEFT JOIN public.model AS m ON m.active
LEFT JOIN public.embedding AS e ON e.model_id = m.id AND e.picture_id = pp.picture_id
GROUP BY p.id;
COMMENT ON VIEW analytics.products IS
    'one row per product; embedded_pictures counts those the active model has an embedding of';

CREATE OR REPLACE VIEW analytics.index_builds AS
SELECT
    b.id,
    m.name AS model,
    b.state,
    b.kind,
    b.rows,
    b.size AS bytes,
    b.recall_at_10,
    b.seconds,
    b.reason,
    b.started_at,
    b.finished_at
FROM public.index_build AS b
JOIN public.model AS m ON m.id = b.model_id;
COMMENT ON VIEW analytics.index_builds IS
    'every FAISS index built; recall_at_10 is between 0 and 1, seconds and bytes are of the build';
