"""The whole of a common search in one statement, which needs no transaction to see one snapshot.

The statement is planned once a connection: planning takes longer than running it.
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
"""Characters of a filter's condition beyond which its plan, which takes memory in the server for as
long as the connection lasts, is made anew each time."""

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
    """The candidates, the rows that `products.product_of` reads, and what else was seen.

    `deeper` says of a search with a filter that it was not among the pictures that pass.
    """

    candidates: Candidates
    rows: Sequence[Any]
    delta_rows: int
    lag: float | None
    deeper: bool = False


@dataclass(frozen=True, slots=True)
class StatementRequest:
    """One look at `n` pictures through a build; `vector` as in `answers.Ask`.

    With a filter, `listed` are the pictures that passed it a while ago.
    """

    model: Model
    build: Build
    vector: Vector
    n: int
    k: int
    only: FilterClause = EVERYTHING
    listed: FilterIdList | None = None


class FilterListOutdated(Exception):
    """The list of pictures that pass a filter cannot be used any more."""


def cluster(connection: psycopg.Connection) -> str:
    """The cluster and database of a connection, as `index_build` names them."""
    row = connection.execute(f"SELECT {index_builds.CLUSTER}").fetchone()
    assert row is not None
    return str(row[0])


def search(
    connection: psycopg.Connection,
    look: StatementRequest,
    nominated: NDArray[np.int64],
    seen_to: float | None,
    *,
    cluster: str,
    allowed: int,
) -> StatementResult | None:
    """What `index_delta.near_build` finds among nominated pictures, with the details of the page.

    `nominated` are picture ids, shape (m,), int64; `seen_to` is the cosine distance from which on
    pictures were not nominated, None if all were.

    None unless the model is the active one and the build the newest that may be used now.
    `connection` must be one that commits by itself and knows pgvector's types. Raises ListOutdated.
    """
    values: dict[str, Any] = {
        "q": HalfVector(look.vector),
        "nominated": f"{{{','.join(map(str, nominated.tolist()))}}}",
        "excluded": "{}",  # for a search that went on from another page there is the longer way
        "snapshot": look.build.snapshot,
        "in_progress": look.build.in_progress,
        "cluster": cluster,
        # As text, as all of them: psycopg gives small and large numbers types of their own.
        "n": str(look.n),
        "k": str(look.k),
        "allowed": str(allowed + 1),
        **(look.listed.values if look.listed else {}),
        **look.only.values,
    }
    with connection.cursor(binary=True, row_factory=namedtuple_row) as cursor:
        rows: Sequence[Any] = cursor.execute(
            _sql(look.model.id, look.only.condition), values, prepare=_is_prepared(look.only)
        ).fetchall()
    first = rows[0]
    if (first.active, first.newest) != (look.model.id, look.build.id):
        return None
    if not first.usable:
        raise FilterListOutdated
    found = index_delta.merged_candidates(rows, len(nominated), seen_to, look.n)
    lag = None if first.lag is None else float(first.lag)
    return StatementResult(found, rows[: len(found.hits)], first.delta_rows, lag)


def _is_prepared(only: FilterClause) -> bool:
    """Whether a statement is worth being kept planned; one for each list of values is not."""
    return len(only.condition) <= MAX_PREPARED_LENGTH


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
        seen=nearest.HIT_COUNTS.format(delta=index_delta.DELTA_COUNT),
        usable=filter_snapshot.USABLE if condition else "true",
        **parts,
    )
    return " ".join(sql.split())  # psycopg remembers how to send a statement if it is short
