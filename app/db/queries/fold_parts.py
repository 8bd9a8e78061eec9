"""Parts of a search in one statement: what folding needs besides the page's products.

The verdicts that name these products, the pictures of those whose words another product of the page
has too, the calibrations of their categories, and how many products of the catalogue have these
words. Verdicts on products that are the same as these, but not on the page, take another statement.
"""

from __future__ import annotations

from app.db.queries import fold_pictures, products

PLACES = """
, page AS MATERIALIZED (
    SELECT best.*, row_number() OVER (ORDER BY distance, product_id) AS place,
        count(*) OVER (PARTITION BY picture_id) > 1 AS repeated
    FROM best ORDER BY distance, product_id LIMIT %(k)s)"""
"""The page, with whether several products near the query show the same picture."""

OWN = """
, own AS MATERIALIZED (
    SELECT page.*, p.identity_key, {fields},
        p.identity_key <> '' AND count(*) OVER (PARTITION BY p.identity_key) > 1 AS compared
    FROM page JOIN product AS p ON p.id = page.product_id
)"""
"""The page with its products, and whether another one of them has the same words (`compared`)."""

PRODUCT_FIELDS = ", ".join(f"p.{name}" for name in products.TYPES)

ROWS = "own AS page"
"""The rows of the page with their products."""

SHARING = """(
        SELECT count(*) FROM (
            SELECT FROM product_picture AS pp WHERE pp.picture_id = page.picture_id
            LIMIT %(shared)s) AS few)"""
PICTURES = f"""(
        SELECT CASE WHEN max(told.shown) > {fold_pictures.MAX_KEYS} THEN CAST('' AS bytea)
            ELSE {fold_pictures.AGGREGATE} END
        FROM (
            SELECT pp.picture_id, (
                SELECT count(*) FROM (
                    SELECT FROM product_picture AS o WHERE o.picture_id = pp.picture_id
                    LIMIT {fold_pictures.MAX_KEYS + 1}) AS showing) AS shown
            FROM product_picture AS pp WHERE pp.product_id = page.product_id
            ORDER BY pp.position, pp.picture_id LIMIT {fold_pictures.MAX_COMPARED}
        ) AS told JOIN embedding AS e
            ON e.model_id = {{model}} AND e.picture_id = told.picture_id)"""
"""The pictures of a product by which it is told apart, where few products show each of them;
elsewhere '', because a small statement counts once for all products whether a picture tells them
apart (`fold_pictures.COMPARED_PICTURES`)."""

VERDICTS = """(
        SELECT jsonb_agg(to_jsonb(v)) FROM (
            SELECT array_agg(sku) || CAST(%(earlier)s AS text[]) AS skus FROM own) AS known
        JOIN duplicate_verdict AS v ON v.sku_a = ANY(known.skus) OR v.sku_b = ANY(known.skus))"""
CALIBRATIONS = """(
        SELECT jsonb_agg(to_jsonb(c)) FROM calibration AS c
        WHERE c.model_id = {model} AND (
            c.category = '' OR c.category IN (SELECT category FROM own)))"""

FOLD_COLUMNS = f""", CASE WHEN page.repeated THEN {SHARING} END AS sharing,
    CASE WHEN page.place <= CAST(%(thumbnails)s AS bigint) THEN {{same_words}} END AS same_words,
    page.compared, CASE WHEN page.compared THEN {PICTURES} END AS pictures,
    CASE WHEN page.place = 1 THEN {VERDICTS} END AS verdicts,
    CASE WHEN page.place = 1 THEN {CALIBRATIONS} END AS calibrations"""
"""Columns of the page's rows. `sharing` counts the products that show the picture, up to a number,
null where no other product near the query does; `same_words` those with the words of the product,
null beyond the first thumbnails; `pictures` are those of a compared product, packed, or '' if they
take another statement. The verdicts and calibrations are in the first row only."""


def own() -> str:
    """The CTE after the CTE `page`."""
    return OWN.format(fields=PRODUCT_FIELDS)


def columns(model_id: int) -> str:
    """The columns of the page's rows, under a model."""
    return FOLD_COLUMNS.format(
        model=model_id, same_words=products.COUNT_SAME_WORDS.format(product="page")
    )
