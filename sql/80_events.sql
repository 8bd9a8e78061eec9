-- Views of recorded searches and of the events on their results. They go back as far as
-- LOOKALIKE_EVENT_DAYS, and nobody can be recognised in them: clients and sessions are not shown.

CREATE OR REPLACE VIEW analytics.clicks AS
SELECT
    e.at,
    e.action_name AS action,
    e.query_id,
    e.sku,
    p.title,
    p.id IS NOT NULL AS in_catalogue,
    r.skipped + array_position(r.shown, e.sku) AS rank,
    e.position AS told_position,
    r.kind,
    r.at AS searched_at,
    e.application
FROM public.search_event AS e
LEFT JOIN public.search_request AS r ON r.query_id = e.query_id
LEFT JOIN public.product AS p ON p.sku = e.sku
WHERE e.action_name IN ('click', 'click_through', 'add_to_cart', 'purchase');
COMMENT ON VIEW analytics.clicks IS
    'one row per event that chooses a product: click, click_through, add_to_cart or purchase; events'
    ' on searches that were not recorded have no rank, kind and searched_at';
COMMENT ON COLUMN analytics.clicks.at IS 'when the event was received';
COMMENT ON COLUMN analytics.clicks.action IS 'click, click_through, add_to_cart or purchase';
COMMENT ON COLUMN analytics.clicks.query_id IS 'the answer that showed the product';
COMMENT ON COLUMN analytics.clicks.sku IS 'the product, as the client tells';
COMMENT ON COLUMN analytics.clicks.title IS 'its title; null: it is not in the catalogue any more';
COMMENT ON COLUMN analytics.clicks.in_catalogue IS 'whether the product exists now';
COMMENT ON COLUMN analytics.clicks.rank IS
    'its place in the answer, from 1, earlier pages included; null: folded into another match, not'
    ' in the answer, or the search was not recorded';
COMMENT ON COLUMN analytics.clicks.told_position IS 'its place on the page, as the client tells';
COMMENT ON COLUMN analytics.clicks.kind IS
    'what was searched by: photo, sku, vector or text, or photo+text and the like';
COMMENT ON COLUMN analytics.clicks.searched_at IS 'when the search was answered';
COMMENT ON COLUMN analytics.clicks.application IS 'the program or page, as the client tells';

CREATE OR REPLACE VIEW analytics.click_through AS
WITH shown AS (
    SELECT s.sku, count(*) AS answers, avg(r.skipped + s.place) AS mean_rank
    FROM public.search_request AS r
    CROSS JOIN LATERAL unnest(r.shown) WITH ORDINALITY AS s (sku, place)
    GROUP BY s.sku
), acted AS (
    SELECT
        e.sku,
        count(DISTINCT e.query_id) FILTER (WHERE e.action_name = 'impression') AS impressions,
        count(DISTINCT e.query_id)
            FILTER (WHERE e.action_name IN ('click', 'click_through')) AS clicks,
        count(DISTINCT e.query_id) FILTER (WHERE e.action_name = 'purchase') AS purchases
    FROM public.search_event AS e
    JOIN public.search_request AS r ON r.query_id = e.query_id AND e.sku = ANY(r.shown)
    GROUP BY e.sku
)
SELECT
    shown.sku,
    p.title,
    p.id IS NOT NULL AS in_catalogue,
    shown.answers AS shown,
    round(shown.mean_rank, 2) AS mean_rank,
    coalesce(acted.impressions, 0) AS impressions,
    coalesce(acted.clicks, 0) AS clicks,
    coalesce(acted.purchases, 0) AS purchases,
    round(coalesce(acted.clicks, 0)::numeric / shown.answers, 4) AS click_through
FROM shown
LEFT JOIN acted ON acted.sku = shown.sku
LEFT JOIN public.product AS p ON p.sku = shown.sku;
COMMENT ON VIEW analytics.click_through IS
    'one row per product that a recorded search showed; each number counts searches, and a search'
    ' once, however often the product was clicked in it';
COMMENT ON COLUMN analytics.click_through.sku IS 'the product';
COMMENT ON COLUMN analytics.click_through.title IS
    'its title; null: it is not in the catalogue any more';
COMMENT ON COLUMN analytics.click_through.in_catalogue IS 'whether the product exists now';
COMMENT ON COLUMN analytics.click_through.shown IS 'searches whose answer has it as a match';
COMMENT ON COLUMN analytics.click_through.mean_rank IS 'its mean place in them, from 1';
COMMENT ON COLUMN analytics.click_through.impressions IS
    'those in which the client tells that it was seen; 0 where clients do not tell';
COMMENT ON COLUMN analytics.click_through.clicks IS 'those in which it was clicked';
COMMENT ON COLUMN analytics.click_through.purchases IS 'those after which it was bought';
COMMENT ON COLUMN analytics.click_through.click_through IS 'clicks by shown, 0 to 1';

CREATE OR REPLACE VIEW analytics.searches_without_a_click AS
SELECT
    r.query_id,
    r.at,
    r.kind,
    r.k,
    cardinality(r.shown) AS matches,
    r.skipped,
    r.shown[1] AS first_sku,
    r.model,
    r.path,
    r.words,
    r.sku,
    r.filters
FROM public.search_request AS r
WHERE NOT EXISTS (
    SELECT FROM public.search_event AS e
    WHERE e.query_id = r.query_id
        AND e.action_name IN ('click', 'click_through', 'add_to_cart', 'purchase'));
COMMENT ON VIEW analytics.searches_without_a_click IS
    'one row per recorded search in whose answer nothing was chosen; a further page is a search of'
    ' its own. Words, sku and filters are null unless the key of the search records queries';
COMMENT ON COLUMN analytics.searches_without_a_click.query_id IS 'the answer';
COMMENT ON COLUMN analytics.searches_without_a_click.at IS 'when it was answered, to a second';
COMMENT ON COLUMN analytics.searches_without_a_click.kind IS
    'what was searched by: photo, sku, vector or text, or photo+text and the like';
COMMENT ON COLUMN analytics.searches_without_a_click.k IS 'products asked for';
COMMENT ON COLUMN analytics.searches_without_a_click.matches IS 'products in the answer';
COMMENT ON COLUMN analytics.searches_without_a_click.skipped IS
    'products on the pages before; above 0: a further page';
COMMENT ON COLUMN analytics.searches_without_a_click.first_sku IS 'the best match; null: none';
COMMENT ON COLUMN analytics.searches_without_a_click.model IS 'name of the model that answered';
COMMENT ON COLUMN analytics.searches_without_a_click.path IS 'how it was answered';
COMMENT ON COLUMN analytics.searches_without_a_click.words IS 'the words; null: none, or not kept';
COMMENT ON COLUMN analytics.searches_without_a_click.sku IS
    'the product searched by; null: none, or not kept';
COMMENT ON COLUMN analytics.searches_without_a_click.filters IS
    'the conditions; null: not kept';
