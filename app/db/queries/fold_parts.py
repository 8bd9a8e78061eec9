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
    SELECT page.*, p.identity_key, {fields} FROM page JOIN product AS p ON p.id = page.product_id
)"""

FOLD_PARTS = """
, compared AS MATERIALIZED (
    SELECT product_id AS id, sku, category FROM own
    WHERE {counts}identity_key IN (
        SELECT identity_key FROM own WHERE {counts}identity_key <> ''
        GROUP BY identity_key HAVING count(*) > 1)
), {pictures}, packed AS MATERIALIZED (
    SELECT told.product_id, {aggregate} AS pictures
    {vectors} GROUP BY told.product_id
)"""

PRODUCT_FIELDS = ", ".join(f"p.{name}" for name in products.TYPES)

ROWS = "own AS page"
"""The rows of the page with their products."""

SHARING = """(
        SELECT count(*) FROM (
            SELECT FROM product_picture AS pp WHERE pp.picture_id = page.picture_id
            LIMIT %(shared)s) AS few)"""
COMPARED = "EXISTS (SELECT FROM compared WHERE compared.id = page.product_id)"
PICTURES = "(SELECT packed.pictures FROM packed WHERE packed.product_id = page.product_id)"
VERDICTS = """(
        SELECT jsonb_agg(to_jsonb(v)) FROM (
            SELECT array_agg(sku) || CAST(%(earlier)s AS text[]) AS skus FROM own) AS known
        JOIN duplicate_verdict AS v ON v.sku_a = ANY(known.skus) OR v.sku_b = ANY(known.skus))"""
CALIBRATIONS = """(
        SELECT jsonb_agg(to_jsonb(c)) FROM calibration AS c
        WHERE c.model_id = {model} AND EXISTS (SELECT FROM compared) AND (
            c.category = '' OR c.category IN (SELECT category FROM compared)))"""

FOLD_COLUMNS = f""", CASE WHEN page.repeated THEN {SHARING} END AS sharing,
    CASE WHEN page.place <= CAST(%(thumbnails)s AS bigint) THEN {{same_words}} END AS same_words,
    {COMPARED} AS compared, {PICTURES} AS pictures,
    CASE WHEN page.place = 1 THEN {VERDICTS} END AS verdicts,
    CASE WHEN page.place = 1 THEN {CALIBRATIONS} END AS calibrations"""
"""Columns of the page's rows. `sharing` counts the products that show the picture, up to a number,
null where no other product near the query does; `same_words` those with the words of the product,
null beyond the first thumbnails; `pictures` are those of a compared product, packed. The verdicts
and calibrations are in the first row only."""


def parts(model_id: int) -> str:
    """The CTEs, after the CTE `page`, under a model."""
    return OWN.format(fields=PRODUCT_FIELDS) + parts_of_own(model_id)


def parts_of_own(model_id: int, counts: str = "") -> str:
    """The CTEs after `own`. `counts` is a condition, with an AND at its end, on the rows of it that
    count where a product has several."""
    pictures = fold_pictures.COMPARED_PICTURES.format(products="compared AS p")
    return FOLD_PARTS.format(
        counts=counts,
        pictures=pictures,
        aggregate=fold_pictures.AGGREGATE,
        vectors=fold_pictures.PACKED.format(model=model_id),
    )


def columns(model_id: int) -> str:
    """The columns of the page's rows, under a model."""
    return FOLD_COLUMNS.format(
        model=model_id, same_words=products.COUNT_SAME_WORDS.format(product="page")
    )
