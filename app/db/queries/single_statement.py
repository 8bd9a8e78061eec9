"""A whole search in one SQL statement, which needs no transaction to see a single snapshot.

Each connection prepares the statement once, because planning takes longer than running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg.rows import namedtuple_row

from app.db.queries import filter_snapshot, index_builds, index_delta, models, nearest, products
from app.db.queries.filter_snapshot import FilterIdList
from app.db.queries.nearest import EVERYTHING, Candidates, FilterClause
from app.types import Build, Model, Vector

MAX_PREPARED_LENGTH = 1000
"""Longest filter condition, in characters, whose statement is prepared. A prepared plan takes
memory in the server as long as the connection lasts."""

PAGE_WITH_DETAILS = """
SELECT page.product_id, page.picture_id, page.distance, seen.*,
    (SELECT id FROM model WHERE active) AS active, ({newest}) AS newest, {lag} AS lag,
    {usable} AS usable,
    {fields}, pp.uri, pic.thumbnail
FROM {seen} LEFT JOIN (
    page JOIN product AS p ON p.id = page.product_id
    JOIN product_picture AS pp USING (product_id, picture_id)
    JOIN picture AS pic ON pic.id = page.picture_id) ON true
ORDER BY page.distance, page.product_id"""


@dataclass(frozen=True, slots=True)
class StatementResult:
    """The candidates, with what else the statement read in the same snapshot.

    `rows` are the rows of the page, one per hit, for `products.product_from_row`. `lag` is in
    seconds, as in `models.LAG`. `deeper`: a filtered search took its nominees from the whole index
    and filtered them afterwards. `fetched` is the number of pictures of the round that answered.
    """

    candidates: Candidates
    rows: Sequence[Any]
    delta_rows: int
    lag: float | None
    deeper: bool = False
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class StatementRequest:
    """A search of the `n` nearest pictures of a build for a page of `k` products.

    `vector` is the query, shape (dim,), rounded to float16. `listed` is the cached list of the
    pictures that pass `filter_clause`, if there is a filter.
    """

    model: Model
    build: Build
    vector: Vector
    n: int
    k: int
    filter_clause: FilterClause = EVERYTHING
    listed: FilterIdList | None = None


class FilterListOutdated(Exception):
    """The cached list of the pictures that pass a filter is out of date."""


def cluster(connection: psycopg.Connection) -> str:
    """The cluster and database of a connection, in the form of `index_build.cluster`."""
    row = connection.execute(f"SELECT {index_builds.CLUSTER}").fetchone()
    assert row is not None
    return str(row[0])


def search(
    connection: psycopg.Connection,
    request: StatementRequest,
    nominated: NDArray[np.int64],
    seen_to: float | None,
    *,
    known: int | None,
    cluster: str,
    max_delta_rows: int,
) -> StatementResult | None:
    """The result of `index_delta.nearest` for nominated pictures, with the details of the page.

    `nominated`, `seen_to` and `known` as in `index_delta.nearest`.

    Returns None unless the model is the active one and the build the newest usable one.
    `connection` must be in autocommit mode and have pgvector's types registered. Raises
    FilterListOutdated.
    """
    values: dict[str, Any] = {
        "q": HalfVector(request.vector),
        "nominated": f"{{{','.join(map(str, nominated.tolist()))}}}",
        "excluded": "{}",  # further pages take several statements instead
        "hidden": "{}",
        "snapshot": request.build.snapshot,
        "in_progress": request.build.in_progress,
        "cluster": cluster,
        # As text: psycopg would give small and large numbers different types, and so other plans.
        "n": str(request.n),
        "k": str(request.k),
        "allowed": str(max_delta_rows + 1),
        "known": None if known is None else str(known),
        **(request.listed.values if request.listed else {}),
        **request.filter_clause.values,
    }
    with connection.cursor(binary=True, row_factory=namedtuple_row) as cursor:
        rows: Sequence[Any] = cursor.execute(
            _sql(request.model.id, request.filter_clause.condition),
            values,
            prepare=_is_prepared(request.filter_clause),
        ).fetchall()
    first = rows[0]
    if (first.active, first.newest) != (request.model.id, request.build.id):
        return None
    if not first.usable:
        raise FilterListOutdated
    candidates = index_delta.merged_candidates(rows, len(nominated), seen_to, known, request.n)
    lag = None if first.lag is None else float(first.lag)
    return StatementResult(candidates, rows[: len(candidates.hits)], first.delta_rows, lag)


def _is_prepared(filter_clause: FilterClause) -> bool:
    """Whether the statement is prepared; long conditions rarely come twice."""
    return len(filter_clause.condition) <= MAX_PREPARED_LENGTH


@lru_cache(maxsize=64)
def _sql(model_id: int, condition: str) -> str:
    parts = FilterClause(condition).parts | (
        filter_snapshot.template_parts(model_id) if condition else {}
    )
    newest = index_builds.USABLE.format(columns="max(id)", model=model_id, cluster="%(cluster)s")
    sql = (index_delta.BUILD_AND_DELTA + nearest.BEST_PER_PRODUCT + PAGE_WITH_DETAILS).format(
        model=model_id,
        newest=newest,
        lag=models.LAG,
        fields=products.FIELDS,
        seen=nearest.HIT_COUNTS.format(build=index_delta.BUILD_COUNTS),
        usable=filter_snapshot.USABLE if condition else "true",
        **parts,
    )
    return " ".join(sql.split())  # psycopg caches how it sends a statement only if it is short
