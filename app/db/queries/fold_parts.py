"""Parts of a search in one statement: what folding needs besides the page's products.

Products with the words of several products, the verdicts on all of these, the pictures that are
compared, and the calibrations of their categories.
"""

from __future__ import annotations

from app.db.queries import fold_pictures, products, verdicts

MAX_ALIKE = 20
"""Products with the same words that are read for each wording. In a large catalogue wordings that
name no article have more: with 60, a folded page of a million products took 2.3 times the processor
time."""

FOLD_PARTS = """
, candidate AS MATERIALIZED (
    SELECT p.id, p.sku, p.identity_key, p.category
    FROM (
        SELECT product_id AS id FROM page
        UNION SELECT unnest(CAST(%(earlier)s AS bigint[]))) AS own
    JOIN product AS p USING (id)
), wording AS MATERIALIZED (
    SELECT own.key, counted.total
    FROM (SELECT DISTINCT identity_key AS key FROM candidate WHERE identity_key <> '') AS own
    CROSS JOIN LATERAL (
        SELECT count(*) AS total FROM (
            SELECT FROM product AS p WHERE p.identity_key = own.key LIMIT {most_counted} + 1
        ) AS few) AS counted
    WHERE counted.total > 1
), alike AS MATERIALIZED (
    SELECT p.*, wording.key, wording.total FROM wording CROSS JOIN LATERAL (
        SELECT id, sku, category FROM product AS p WHERE p.identity_key = wording.key ORDER BY p.id
        LIMIT {most_alike}) AS p
), decided AS MATERIALIZED (
    {verdicts}
), compared AS MATERIALIZED (
    SELECT id, category FROM alike
    UNION SELECT candidate.id, category FROM candidate
        JOIN wording ON wording.key = candidate.identity_key
    UNION SELECT candidate.id, category FROM decided
        JOIN candidate ON candidate.sku = decided.sku_a OR candidate.sku = decided.sku_b
), {pictures}, packed AS MATERIALIZED (
    SELECT told.product_id, {aggregate} AS pictures
    {vectors} GROUP BY told.product_id
)"""

FOLD_COLUMNS = """, (
        SELECT count(*) FROM (
            SELECT FROM product_picture AS pp WHERE pp.picture_id = page.picture_id
            LIMIT %(shared)s) AS few) AS sharing,
    CAST(NULL AS bytea) AS pictures,
    CASE WHEN page.place = 1 THEN (SELECT jsonb_agg(to_jsonb(d)) FROM decided AS d) END AS verdicts,
    CASE WHEN page.place = 1 THEN (
        SELECT jsonb_agg(to_jsonb(c)) FROM calibration AS c
        WHERE c.model_id = {model} AND EXISTS (SELECT FROM compared) AND (
            c.category = '' OR c.category IN (SELECT category FROM compared))) END
        AS calibrations,
    p.identity_key AS key, CAST(NULL AS bigint) AS total, CAST(NULL AS bigint) AS compared"""
"""Columns of the page's rows; the verdicts and calibrations are in the first row only."""

COMPARED_ROWS = """
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    {fields}, NULL, NULL{vector}, NULL, packed.pictures, NULL, NULL, alike.key, alike.total, p.id
FROM compared JOIN product AS p USING (id) LEFT JOIN packed ON packed.product_id = p.id
LEFT JOIN alike ON alike.id = p.id"""
"""Rows of the compared products, after those of the page, with their pictures; `key` and `total`
for the first products with the same words."""


def parts(model_id: int) -> str:
    """The CTEs, after the CTE `page`, under a model."""
    pictures = fold_pictures.COMPARED_PICTURES.format(
        products="(SELECT p.* FROM compared JOIN product AS p USING (id)) AS p"
    )
    skus = "SELECT sku FROM candidate UNION SELECT sku FROM alike"
    return FOLD_PARTS.format(
        most_counted=products.MAX_COUNTED,
        most_alike=MAX_ALIKE,
        verdicts=verdicts.RELATED.format(skus=skus),
        pictures=pictures,
        aggregate=fold_pictures.AGGREGATE,
        vectors=fold_pictures.PACKED.format(model=model_id),
    )
