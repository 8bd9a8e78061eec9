"""Nearest-neighbour SQL: the nearest pictures and the products that show them, exact or by index.

PostgreSQL's `<=>` computes every distance: cosine distance (0 to 2), double precision. A statement
that orders by distance first and has to be exact orders by `(vec <=> q) + 0`: without the `+ 0`
PostgreSQL's planner may use an index, which is approximate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, text

from app.db.queries import pgvector_index
from app.db.queries.filter_sql import condition
from app.db.queries.pgvector_index import MeasuredIndex
from app.types import Filters, Hit, Model, Vector, Vectors

TOLERANCE = 2e-4
"""Cosine distance by which FAISS and PostgreSQL's `<=>` may differ: FAISS takes the inner product
of rows whose length is up to 1e-4 from 1 (`ROUNDING_TOLERANCE` of the reader), `<=>` divides by it.
The rest is for float32 sums, which differed by 1e-7 in 4,000 rows of 512 dimensions."""

BEST_PER_PRODUCT = """
, best AS (
    SELECT DISTINCT ON (pp.product_id) pp.product_id, hit.picture_id, hit.distance
    FROM {near} AS hit JOIN product_picture AS pp USING (picture_id){passing}
    WHERE pp.product_id NOT IN (SELECT unnest(CAST(%(excluded)s AS bigint[])))
        AND hit.picture_id <> ALL(CAST(%(hidden)s AS bigint[]))
    ORDER BY pp.product_id, hit.distance, hit.picture_id
)"""
"""From the CTE hit(picture_id, distance, fresh), or one of its nearest rows (`near`), to the
products, each with its nearest picture."""

PAGE = ", page AS (SELECT * FROM best ORDER BY distance, product_id LIMIT %(k)s)"
"""The `k` products with the nearest pictures."""

HIT_COUNTS = """(
    SELECT count(*) FILTER (WHERE NOT fresh) AS held, count(*) FILTER (WHERE fresh) AS fresh,
        max(distance) FILTER (WHERE fresh) AS farthest{build}
    FROM hit
) AS seen"""
"""Counts over the CTE hit: rows from the build (held), rows from elsewhere (fresh), and the largest
distance among the fresh ones. In EXACT and APPROXIMATE, which use no build, all rows are fresh.
`build` is more columns of a statement that uses one (`index_delta.BUILD_COUNTS`)."""

PRODUCT_PAGE = (
    BEST_PER_PRODUCT
    + PAGE
    + "SELECT page.product_id, page.picture_id, page.distance, seen.* FROM "
    + HIT_COUNTS
    + " LEFT JOIN page ON true ORDER BY page.distance, page.product_id"
)
"""The page; each row repeats HIT_COUNTS, and an empty page gives one row with the counts alone."""

EXACT = """
WITH hit AS MATERIALIZED (
    SELECT e.picture_id, e.vec <=> CAST(%(q)s AS halfvec) AS distance, true AS fresh
    FROM embedding AS e
    WHERE e.model_id = {model}
    ORDER BY (e.vec <=> CAST(%(q)s AS halfvec)) + 0, e.picture_id
    LIMIT %(n)s
)"""

# PostgreSQL's planner uses pgvector's index only with the same cast and condition as in the index,
# and in ascending order of the bare operator.
APPROXIMATE = """
WITH hit AS MATERIALIZED (
    SELECT e.picture_id, e.vec::halfvec({dim}) <=> CAST(%(q)s AS halfvec({dim})) AS distance,
        true AS fresh
    FROM embedding AS e
    WHERE e.model_id = {model} AND e.{named}{shown}
    ORDER BY e.vec::halfvec({dim}) <=> CAST(%(q)s AS halfvec({dim}))
    LIMIT %(n)s
)"""

PROBED = """
SELECT array_agg(picture_id) FROM (
    SELECT picture_id FROM embedding_m{model} WHERE {named}
    ORDER BY vec::halfvec({dim}) <=> CAST(%(q)s AS halfvec({dim}))
    LIMIT %(k)s
) AS found"""
"""The pictures that pgvector's index finds for a query."""

# The order is by product first, which no index can give. `LIMIT NULL` means no limit.
EXACT_FILTERED = """
WITH passing AS MATERIALIZED (
    SELECT pp.product_id, pp.picture_id
    FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
    WHERE {condition} AND p.id <> ALL(CAST(%(excluded)s AS bigint[]))
        AND pp.picture_id <> ALL(CAST(%(hidden)s AS bigint[]))
    LIMIT %(allowed)s
), best AS (
    SELECT DISTINCT ON (passing.product_id)
        passing.product_id, e.picture_id, e.vec <=> CAST(%(q)s AS halfvec) AS distance
    FROM passing JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = passing.picture_id
    ORDER BY passing.product_id, distance, e.picture_id
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
"""Condition on embedding `e`: a product that passes the filter shows its picture."""


@dataclass(frozen=True, slots=True)
class FilterClause:
    """SQL condition on `product AS p` with its bound values; an empty condition means no filter."""

    condition: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, str]:
        """Values for the placeholders `shown`, `shown_nominee`, `passing`, `moved` and `also` of
        the templates.

        `moved` and `also` are empty here; a cached filter sets them (`filter_snapshot`).
        """
        if not self.condition:
            return dict.fromkeys(("shown", "shown_nominee", "passing", "moved", "also"), "")
        product = f" JOIN product AS p ON p.id = pp.product_id AND ({self.condition})"
        shown = SHOWN_BY_FILTERED.format(condition=self.condition)
        return {
            "shown": shown, "shown_nominee": shown, "passing": product, "moved": "", "also": "",
        }  # fmt: skip


EVERYTHING = FilterClause()
"""The filter that every product passes."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best hit of each product among the examined pictures, nearest first.

    `seen_to` is the cosine distance (0 to 2) from which on pictures may be missing; None: none are
    missing. `examined` is the number of pictures compared, `vanished` the number of nominees of
    the index that were changed or deleted since its build.
    """

    hits: tuple[Hit, ...]
    seen_to: float | None
    examined: int = 0
    vanished: int = 0


def filter_clause(filters: Filters) -> FilterClause:
    """The clause of these filters; raises BadInput as `filter_sql.condition` does."""
    return FilterClause(*condition(filters)) if filters else EVERYTHING


def exact(
    connection: Connection,
    model: Model,
    query: Vector,
    *,
    n: int,
    k: int,
    excluded: Sequence[int],
    hidden: Sequence[int] = (),
) -> Candidates:
    """The products of the `n` nearest pictures, at most `k`, by a sequential scan; exact.

    Products with an id in `excluded` and pictures with an id in `hidden` are left out.
    """
    sql = (EXACT + PRODUCT_PAGE).format(model=model.id, build="", near="hit", **EVERYTHING.parts)
    rows = fetch_rows(connection, sql, query, k, excluded, hidden, n=n)
    examined = rows[0].fresh
    return candidates_from_rows(rows, rows[0].farthest if examined >= n else None, examined)


def approximate(
    connection: Connection,
    model: Model,
    index: MeasuredIndex,
    query: Vector,
    *,
    n: int,
    k: int,
    excluded: Sequence[int],
    hidden: Sequence[int] = (),
    filter_clause: FilterClause = EVERYTHING,
) -> Candidates:
    """The products of about the `n` nearest pictures, at most `k`, by a measured pgvector index.

    Approximate: the result never counts as complete, even with fewer than `n` pictures. Sets
    `ivfflat.probes` and `ivfflat.iterative_scan` for the transaction.
    """
    pgvector_index.set_probes(connection, index.probes)
    sql = (APPROXIMATE + PRODUCT_PAGE).format(
        model=model.id, dim=model.dim, named=index.condition, build="", near="hit",
        **filter_clause.parts,
    )  # fmt: skip
    rows = fetch_rows(connection, sql, query, k, excluded, hidden, n=n, **filter_clause.values)
    return candidates_from_rows(rows, rows[0].farthest or 0.0, rows[0].fresh)


def probed_ids(
    connection: Connection, model: Model, slot: int, probes: int, queries: Vectors, k: int
) -> NDArray[np.int64]:
    """The ids of about the `k` nearest pictures of each query, shape (n, dim), by the pgvector
    index in a slot with so many probes: (n, k), padded with -1.

    Sets this transaction up to use the index.
    """
    pgvector_index.set_probes(connection, probes, iterate=False)
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    sql = PROBED.format(model=model.id, dim=model.dim, named=pgvector_index.condition(slot))
    ids = np.full((len(queries), k), -1, np.int64)
    for row, query in zip(ids, queries.astype(np.float16), strict=True):
        values = {"q": literal(query), "k": k}
        found = connection.exec_driver_sql(sql, values).scalar_one() or []
        row[: len(found)] = found
    return ids


def exact_filtered(
    connection: Connection,
    model: Model,
    query: Vector,
    filter_clause: FilterClause,
    *,
    k: int,
    excluded: Sequence[int],
    hidden: Sequence[int] = (),
    max_pictures: int | None = None,
) -> Candidates | None:
    """The `k` nearest products that pass a filter; exact.

    None if the products that pass show more than `max_pictures` pictures (None: no limit).
    """
    sql = EXACT_FILTERED.format(model=model.id, condition=filter_clause.condition)
    limit = None if max_pictures is None else max_pictures + 1
    rows = fetch_rows(
        connection, sql, query, k, excluded, hidden, allowed=limit, **filter_clause.values
    )
    if max_pictures is not None and rows[0].pictures > max_pictures:
        return None
    return candidates_from_rows(rows, None, rows[0].pictures)


def filtered_picture_ids(connection: Connection, filter_clause: FilterClause) -> NDArray[np.int64]:
    """Ids of the pictures shown by products that pass, shape (n,), int64; may repeat."""
    sql = FILTERED_PICTURES.format(condition=filter_clause.condition)
    packed = connection.exec_driver_sql(sql, dict(filter_clause.values)).scalar_one()
    # Packed into one value: the driver reads it about 50 times faster than one row per id.
    return np.frombuffer(packed or b"", dtype=">i8").astype(np.int64)


def estimate_filter(connection: Connection, filter_clause: FilterClause) -> tuple[float, float]:
    """How many products pass, and how many exist, both estimated from PostgreSQL's statistics."""
    sql = "EXPLAIN (FORMAT JSON) SELECT FROM product AS p WHERE "
    [plan] = connection.exec_driver_sql(
        sql + filter_clause.condition, dict(filter_clause.values)
    ).scalar_one()
    total = "SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'product'::regclass"
    products = float(connection.exec_driver_sql(total).scalar_one())
    return float(plan["Plan"]["Plan Rows"]), products


def fetch_rows(
    connection: Connection,
    sql: str,
    query: Vector,
    k: int,
    excluded: Sequence[int],
    hidden: Sequence[int],
    **values: Any,
) -> Sequence[Row[Any]]:
    """Run one of the statements for a query vector (dim,); at least one row comes back."""
    bound = {"q": literal(query), "k": k}
    bound |= {"excluded": array_literal(excluded), "hidden": array_literal(hidden)}
    bound |= values
    return connection.exec_driver_sql(sql, bound).all()


def literal(vector: Vector) -> str:
    """A vector in pgvector's text format; float16 values are written without loss."""
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def array_literal(numbers: Iterable[int | str]) -> str:
    """Numbers, or NULL, as an array in PostgreSQL's text format: the driver takes ten times as long
    to write one of thousands."""
    return f"{{{','.join(map(str, numbers))}}}"


def candidates_from_rows(
    rows: Sequence[Any], seen_to: float | None, examined: int, vanished: int = 0
) -> Candidates:
    """Candidates from the rows of a page; the other arguments are fields of `Candidates`."""
    hits = tuple(
        Hit(row.product_id, row.picture_id, row.distance)
        for row in rows
        if row.product_id is not None
    )
    return Candidates(hits, seen_to, examined, vanished)


def is_complete(candidates: Candidates, k: int) -> bool:
    """Whether examining more pictures cannot change the first `k` hits.

    Pictures not examined are at `seen_to` or farther, so the k-th hit must be strictly nearer. An
    approximate index may still have missed nearer pictures, as often as its recall implies.
    """
    if candidates.seen_to is None:
        return True
    hits = candidates.hits
    return len(hits) >= k and hits[k - 1].distance < candidates.seen_to
