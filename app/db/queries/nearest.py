"""SQL that finds the nearest pictures and the products that show them; every distance is `<=>`.

Exact statements order by `(vec <=> q) + 0`: without the `+ 0` the planner may answer them from the
HNSW index, which is not exact. Distances are cosine distances (0 to 2) as double precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, text

from app.db.queries.filter_sql import condition
from app.types import Filters, Hit, Model, Vector

BEST_PER_PRODUCT = """
, best AS (
    SELECT DISTINCT ON (pp.product_id) pp.product_id, hit.picture_id, hit.distance
    FROM hit JOIN product_picture AS pp USING (picture_id){passing}
    WHERE pp.product_id <> ALL(CAST(%(excluded)s AS bigint[]))
    ORDER BY pp.product_id, hit.distance, hit.picture_id
), page AS (SELECT * FROM best ORDER BY distance, product_id LIMIT %(k)s)"""
"""From hit(picture_id, distance, fresh) to the page: the best k products."""


HIT_COUNTS = """(
    SELECT count(*) FILTER (WHERE NOT fresh) AS held, count(*) FILTER (WHERE fresh) AS fresh,
        max(distance) FILTER (WHERE fresh) AS farthest, {delta} AS delta_rows
    FROM hit
) AS seen"""


PRODUCT_PAGE = (
    BEST_PER_PRODUCT
    + "SELECT page.product_id, page.picture_id, page.distance, seen.* FROM "
    + HIT_COUNTS
    + " LEFT JOIN page ON true ORDER BY page.distance, page.product_id"
)
"""The page, with what was seen of hit in every row of it, and in one row if it is empty."""


EXACT = """
WITH hit AS MATERIALIZED (
    SELECT e.picture_id, e.vec <=> CAST(%(q)s AS halfvec) AS distance, true AS fresh
    FROM embedding AS e
    WHERE e.model_id = {model}
    ORDER BY (e.vec <=> CAST(%(q)s AS halfvec)) + 0, e.picture_id
    LIMIT %(n)s
)"""


# The cast is the one of the HNSW index; ascending order of the bare operator is what it serves.
HNSW = """
WITH hit AS MATERIALIZED (
    SELECT e.picture_id, e.vec::halfvec({dim}) <=> CAST(%(q)s AS halfvec({dim})) AS distance,
        true AS fresh
    FROM embedding AS e
    WHERE e.model_id = {model}{shown}
    ORDER BY e.vec::halfvec({dim}) <=> CAST(%(q)s AS halfvec({dim}))
    LIMIT %(n)s
)"""


# A limit of NULL is none.
EXACT_FILTERED = """
WITH passing AS MATERIALIZED (
    SELECT pp.product_id, pp.picture_id
    FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
    WHERE {condition} AND p.id <> ALL(CAST(%(excluded)s AS bigint[]))
    LIMIT %(allowed)s
), best AS (
    SELECT DISTINCT ON (passing.product_id)
        passing.product_id, e.picture_id, e.vec <=> CAST(%(q)s AS halfvec) AS distance
    FROM passing JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = passing.picture_id
    ORDER BY passing.product_id, (e.vec <=> CAST(%(q)s AS halfvec)) + 0, e.picture_id
), page AS (SELECT * FROM best ORDER BY distance, product_id LIMIT %(k)s)
SELECT page.*, seen.pictures
FROM (SELECT count(*) AS pictures FROM passing) AS seen LEFT JOIN page ON true
ORDER BY page.distance, page.product_id"""


FILTERED_PICTURES = """
SELECT string_agg(int8send(pp.picture_id), '')
FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id WHERE {condition}"""


SHOWN_BY_FILTERED = """
        AND EXISTS (
            SELECT FROM product_picture AS pp JOIN product AS p ON p.id = pp.product_id
            WHERE pp.picture_id = e.picture_id AND {condition})"""
"""That a picture (e) is shown by a product that passes."""


@dataclass(frozen=True, slots=True)
class FilterClause:
    """A filter as the statements here take it; without one, nothing is added to them."""

    condition: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, str]:
        """What a filter adds where pictures are found, and where products are."""
        if not self.condition:
            return {"shown": "", "passing": "", "moved": "", "also": ""}
        product = f" JOIN product AS p ON p.id = pp.product_id AND ({self.condition})"
        shown = SHOWN_BY_FILTERED.format(condition=self.condition)
        return {"shown": shown, "passing": product, "moved": "", "also": ""}


EVERYTHING = FilterClause()


def filter_clause(filters: Filters) -> FilterClause:
    """A filter for the statements of this module; raises BadInput as `filters.condition` does."""
    return FilterClause(*condition(filters)) if filters else EVERYTHING


def exact(
    connection: Connection, model: Model, query: Vector, *, n: int, k: int, excluded: Sequence[int]
) -> Candidates:
    """The `n` nearest of all pictures, by a scan of the table."""
    sql = (EXACT + PRODUCT_PAGE).format(model=model.id, delta=0, **EVERYTHING.parts)
    return _exact_candidates(fetch_rows(connection, sql, query, k, excluded, n=n), n)


def hnsw(
    connection: Connection,
    model: Model,
    query: Vector,
    *,
    n: int,
    k: int,
    excluded: Sequence[int],
    only: FilterClause = EVERYTHING,
) -> Candidates:
    """About the `n` nearest pictures, by pgvector's index; it cannot say that there are no more."""
    settings = {
        "hnsw.ef_search": str(min(max(100, 2 * n), 1000)),
        "hnsw.iterative_scan": "strict_order",
    }
    for name, value in settings.items():
        connection.execute(
            text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value}
        )
    sql = (HNSW + PRODUCT_PAGE).format(model=model.id, dim=model.dim, delta=0, **only.parts)
    rows = fetch_rows(connection, sql, query, k, excluded, n=n, **only.values)
    return candidates_from_rows(rows, rows[0].farthest or 0.0, rows[0].fresh)


def exact_filtered(
    connection: Connection,
    model: Model,
    query: Vector,
    only: FilterClause,
    *,
    k: int,
    excluded: Sequence[int],
    allowed: int | None = None,
) -> Candidates | None:
    """The `k` nearest products that pass; nothing is left out.

    None where they show more than `allowed` pictures.
    """
    sql = EXACT_FILTERED.format(model=model.id, condition=only.condition)
    limit = None if allowed is None else allowed + 1
    rows = fetch_rows(connection, sql, query, k, excluded, allowed=limit, **only.values)
    if allowed is not None and rows[0].pictures > allowed:
        return None
    return candidates_from_rows(rows, None, rows[0].pictures)


def filtered_picture_ids(connection: Connection, only: FilterClause) -> NDArray[np.int64]:
    """The ids of the pictures that products show that pass, shape (n,); some come twice."""
    sql = FILTERED_PICTURES.format(condition=only.condition)
    packed = connection.exec_driver_sql(sql, dict(only.values)).scalar_one()
    # Packed, as they fit through the driver fifty times as fast as row by row.
    return np.frombuffer(packed or b"", dtype=">i8").astype(np.int64)


def estimate_filter(connection: Connection, only: FilterClause) -> tuple[float, float]:
    """How many products pass, and how many there are, as the planner believes from statistics."""
    sql = "EXPLAIN (FORMAT JSON) SELECT FROM product AS p WHERE "
    [plan] = connection.exec_driver_sql(sql + only.condition, dict(only.values)).scalar_one()
    total = "SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'product'::regclass"
    products = float(connection.exec_driver_sql(total).scalar_one())
    return float(plan["Plan"]["Plan Rows"]), products


def fetch_rows(
    connection: Connection, sql: str, query: Vector, k: int, excluded: Sequence[int], **values: Any
) -> Sequence[Row[Any]]:
    bound = {"q": literal(query), "k": k, "excluded": list(excluded), **values}
    return connection.exec_driver_sql(sql, bound).all()


def literal(vector: Vector) -> str:
    """A vector as pgvector reads it; float16 values survive the trip digit for digit."""
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def _exact_candidates(rows: Sequence[Row[Any]], n: int) -> Candidates:
    return candidates_from_rows(
        rows, rows[0].farthest if rows[0].fresh >= n else None, rows[0].fresh
    )


def candidates_from_rows(
    rows: Sequence[Any], seen_to: float | None, looked_at: int, vanished: int = 0
) -> Candidates:
    hits = tuple(
        Hit(row.product_id, row.picture_id, row.distance)
        for row in rows
        if row.product_id is not None
    )
    return Candidates(hits, seen_to, looked_at, vanished)


TOLERANCE = 2e-4
"""Cosine distance by which FAISS (float32 or float16 rows) and PostgreSQL's `<=>` may differ."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best hit of each product that was looked at, best first, and how far was looked.

    `seen_to` is the distance (0 to 2) at and beyond which pictures may be missing; None: none are.
    """

    hits: tuple[Hit, ...]
    seen_to: float | None
    looked_at: int = 0
    vanished: int = 0


def is_complete(candidates: Candidates, k: int) -> bool:
    """Whether the first `k` hits cannot change by looking further.

    A picture not looked at lies at `seen_to` or beyond, so only a k-th hit strictly nearer is safe.
    An approximate index may also have passed over nearer ones, as rarely as its recall says.
    """
    if candidates.seen_to is None:
        return True
    hits = candidates.hits
    return len(hits) >= k and hits[k - 1].distance < candidates.seen_to
