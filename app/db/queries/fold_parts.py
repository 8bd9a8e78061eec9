"""Parts of a search in one statement: what folding needs besides the page's products.

The verdicts on these products, the pictures of those whose words another product of the page has
too, the calibrations of their categories, and how many products of the catalogue have these words.
"""

from __future__ import annotations

from app.db.queries import fold_pictures, products, verdicts

PLACES = """
, page AS MATERIALIZED (
    SELECT best.*, row_number() OVER (ORDER BY distance, product_id) AS place,
        count(*) OVER (PARTITION BY picture_id) > 1 AS repeated
    FROM best ORDER BY distance, product_id LIMIT %(k)s)"""
"""The page, with whether several products near the query show the same picture."""

FOLD_PARTS = """
, own AS MATERIALIZED (
    SELECT page.*, p.identity_key, {fields} FROM page JOIN product AS p ON p.id = page.product_id
), decided AS MATERIALIZED (
    {verdicts}
), compared AS MATERIALIZED (
    SELECT product_id AS id, sku, category FROM own
    WHERE identity_key IN (
        SELECT identity_key FROM own WHERE identity_key <> ''
        GROUP BY identity_key HAVING count(*) > 1
    ) OR sku IN (SELECT sku_a FROM decided UNION ALL SELECT sku_b FROM decided)
), {pictures}, packed AS MATERIALIZED (
    SELECT told.product_id, {aggregate} AS pictures
    {vectors} GROUP BY told.product_id
)"""

ROWS = "own AS page"
"""The rows of the page with their products."""

FOLD_COLUMNS = """, CASE WHEN page.repeated THEN (
        SELECT count(*) FROM (
            SELECT FROM product_picture AS pp WHERE pp.picture_id = page.picture_id
            LIMIT %(shared)s) AS few) END AS sharing,
    CASE WHEN page.place <= CAST(%(thumbnails)s AS bigint) THEN {same_words} END AS same_words,
    EXISTS (SELECT FROM compared WHERE compared.id = page.product_id) AS compared,
    (SELECT packed.pictures FROM packed WHERE packed.product_id = page.product_id) AS pictures,
    CASE WHEN page.place = 1 THEN (SELECT jsonb_agg(to_jsonb(d)) FROM decided AS d) END AS verdicts,
    CASE WHEN page.place = 1 THEN (
        SELECT jsonb_agg(to_jsonb(c)) FROM calibration AS c
        WHERE c.model_id = {model} AND EXISTS (SELECT FROM compared) AND (
            c.category = '' OR c.category IN (SELECT category FROM compared))) END
        AS calibrations"""
"""Columns of the page's rows. `sharing` counts the products that show the picture, up to a number,
null where no other product near the query does; `same_words` those with the words of the product,
null beyond the first thumbnails; `pictures` are those of a compared product, packed. The verdicts
and calibrations are in the first row only."""


def parts(model_id: int) -> str:
    """The CTEs, after the CTE `page`, under a model."""
    pictures = fold_pictures.COMPARED_PICTURES.format(products="compared AS p")
    skus = "SELECT sku FROM own UNION SELECT unnest(CAST(%(earlier)s AS text[]))"
    return FOLD_PARTS.format(
        fields=", ".join(f"p.{name}" for name in products.TYPES),
        verdicts=verdicts.RELATED.format(skus=skus),
        pictures=pictures,
        aggregate=fold_pictures.AGGREGATE,
        vectors=fold_pictures.PACKED.format(model=model_id),
    )


def columns(model_id: int) -> str:
    """The columns of the page's rows, under a model."""
    return FOLD_COLUMNS.format(
        model=model_id, same_words=products.COUNT_SAME_WORDS.format(product="page")
    )
