"""A whole search in one SQL statement, which needs no transaction to see a single snapshot.

Each connection prepares the statement once, because planning takes longer than running it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg.rows import namedtuple_row

from app.db.queries import (
    filter_snapshot,
    fold_parts,
    index_builds,
    index_delta,
    models,
    nearest,
    products,
)
from app.db.queries.filter_snapshot import FilterIdList
from app.db.queries.nearest import EVERYTHING, Candidates, FilterClause, array_literal
from app.types import Build, Model, Vector

MAX_PREPARED_LENGTH = 1000
"""Longest filter condition, in characters, whose statement is prepared. A prepared plan takes
memory in the server as long as the connection lasts."""

PAGE_WITH_DETAILS = """
SELECT page.product_id, page.picture_id, page.distance, seen.*,
    (SELECT id FROM model WHERE active) AS active, ({newest}) AS newest, {lag} AS lag,
    {usable} AS usable,
    {fields}, pp.uri, pic.thumbnail{columns}
FROM {seen} LEFT JOIN (
    {page}
    JOIN product_picture AS pp USING (product_id, picture_id)
    {thumbnails}{joins}) ON true
ORDER BY page.distance, page.product_id"""

PAGE_PRODUCTS = "page JOIN product AS p ON p.id = page.product_id"

THUMBNAILS = "JOIN picture AS pic ON pic.id = page.picture_id"
FIRST_THUMBNAILS = """LEFT JOIN picture AS pic
        ON pic.id = page.picture_id AND page.place <= CAST(%(thumbnails)s AS bigint)"""

VECTOR_COLUMN = ", halfvec_send(shown.vec) AS vector"
VECTOR_JOIN = """
    JOIN embedding AS shown ON shown.model_id = {model} AND shown.picture_id = page.picture_id"""


@dataclass(frozen=True, slots=True)
class StatementResult:
    """The candidates, with what else the statement read in the same snapshot.

    `rows` are the rows of the page, one per hit, for `products.product_from_row`. `lag` is in
    seconds, as in `models.LAG`. `deeper`: a filtered search took its nominees from the whole index
    and filtered them afterwards.
    """

    candidates: Candidates
    rows: Sequence[Any]
    delta_rows: int
    lag: float | None
    deeper: bool = False

    def is_complete(self, k: int) -> bool:
        """Whether examining more pictures cannot change the first `k` hits."""
        return nearest.is_complete(self.candidates, k)


@dataclass(frozen=True, slots=True)
class PageExtras:
    """What a page that folds or drops products needs besides the details.

    Only the first `thumbnails` rows have a thumbnail. With `vectors` each row has its embedding
    (`vector`), with `folds` what `fold_parts` reads: verdicts also on the products of earlier pages
    (skus in `earlier`), and the products that show a picture, counted up to `shared`.
    """

    thumbnails: int
    folds: bool = False
    vectors: bool = False
    earlier: tuple[str, ...] = ()
    shared: int = 0


@dataclass(frozen=True, slots=True)
class StatementRequest:
    """A search of the `n` nearest pictures of a build for a page of `k` products.

    `vector` is the query, shape (dim,), rounded to float16. `listed` is the cached list of the
    pictures that pass `filter_clause`, if there is a filter. `excluded` are product ids, `hidden`
    picture ids, `passed` the pictures of the excluded products that the build passed over. `extras`
    is what the rows have besides the details.
    """

    model: Model
    build: Build
    vector: Vector
    n: int
    k: int
    filter_clause: FilterClause = EVERYTHING
    listed: FilterIdList | None = None
    excluded: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()
    passed: tuple[int, ...] = ()
    extras: PageExtras | None = None

    @property
    def passes(self) -> bool:
        """Whether the build passed over pictures."""
        return bool(self.passed or self.hidden)


class FilterListOutdated(Exception):
    """The cached list of the pictures that pass a filter is out of date."""


def cluster(connection: psycopg.Connection) -> str:
    """The cluster and database of a connection, in the form of `index_build.cluster`."""
    row = connection.execute(f"SELECT {index_builds.CLUSTER}").fetchone()
    assert row is not None
    return str(row[0])


class IndexedRequest(Protocol):
    """What a statement over a build and a filter is made for."""

    @property
    def model(self) -> Model: ...
    @property
    def build(self) -> Build: ...
    @property
    def filter_clause(self) -> FilterClause: ...


def checked_rows(
    connection: psycopg.Connection, request: IndexedRequest, sql: str, values: Sequence[object]
) -> Sequence[Any] | None:
    """The rows of a statement with the columns `active`, `newest` and `usable`; at least one.

    None unless the model is the active one and the build the newest usable one. Raises
    FilterListOutdated.
    """
    with psycopg.RawCursor(connection, row_factory=namedtuple_row) as cursor:
        rows: Sequence[Any] = cursor.execute(
            sql, values, prepare=is_prepared(request.filter_clause), binary=True
        ).fetchall()
    first = rows[0]
    if (first.active, first.newest) != (request.model.id, index_builds.identity(request.build)):
        return None
    if not first.usable:
        raise FilterListOutdated
    return rows


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
        "nominated": array_literal(nominated.tolist()),
        "excluded": array_literal(request.excluded),
        "hidden": array_literal(request.hidden),
        "passed": array_literal(request.passed),
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
    extras = request.extras
    if extras is not None:
        values["thumbnails"] = str(extras.thumbnails)
        if extras.folds:
            values |= {"earlier": list(extras.earlier), "shared": str(extras.shared)}
    kind = None if extras is None else (extras.folds, extras.vectors)
    sql, names = _statement(
        request.model.id, request.filter_clause.condition, kind, passes=request.passes
    )
    rows = checked_rows(connection, request, sql, [values[name] for name in names])
    if rows is None:
        return None
    first = rows[0]
    candidates = index_delta.merged_candidates(rows, len(nominated), seen_to, known, request.n)
    lag = None if first.lag is None else float(first.lag)
    # An empty page has a row with the counts alone.
    return StatementResult(candidates, rows[: len(candidates.hits)], first.delta_rows, lag)


def is_prepared(filter_clause: FilterClause) -> bool:
    """Whether the statement is prepared; long conditions rarely come twice."""
    return len(filter_clause.condition) <= MAX_PREPARED_LENGTH


@lru_cache(maxsize=64)
def _statement(
    model_id: int, condition: str, kind: tuple[bool, bool] | None, *, passes: bool
) -> tuple[str, tuple[str, ...]]:
    """The statement with numbered placeholders, and the names of their values in order.

    `kind` is whether it folds, and whether it reads vectors (None: neither, and no more products
    than are shown); `passes` whether the build passed over pictures.
    """
    parts = FilterClause(condition).parts | (
        filter_snapshot.template_parts(model_id) if condition else {}
    )
    parts |= index_delta.passed_parts(model_id, passes=passes)
    hits = (index_delta.BUILD_AND_DELTA + nearest.BEST_PER_PRODUCT).format(
        model=model_id, near="near", nominated=index_delta.NOMINATED, **parts
    )
    folds, vectors = kind or (False, False)
    ctes = nearest.PAGE if kind is None else fold_parts.PLACES
    columns, joins = "", ""
    if vectors:
        columns, joins = VECTOR_COLUMN, VECTOR_JOIN.format(model=model_id)
    if folds:
        ctes += fold_parts.own()
        columns += fold_parts.columns(model_id)
    newest = index_builds.NEWEST.format(model=model_id, cluster="%(cluster)s")
    rows = PAGE_WITH_DETAILS.format(
        newest=newest,
        lag=models.LAG,
        usable=filter_snapshot.USABLE if condition else "true",
        fields=", ".join(f"{'page' if folds else 'p'}.{name}" for name in products.TYPES),
        page=fold_parts.ROWS if folds else PAGE_PRODUCTS,
        columns=columns,
        seen=nearest.HIT_COUNTS.format(build=index_delta.BUILD_COUNTS),
        thumbnails=THUMBNAILS if kind is None else FIRST_THUMBNAILS,
        joins=joins,
    )
    return numbered(f"{hits}{ctes}{rows}")


def numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """A statement with $1, $2 … in place of named placeholders, and the names in order: the driver
    does not parse it at each execution."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${names.setdefault(match[1], len(names) + 1)}"

    numbered = re.sub(r"%\((\w+)\)s", number, " ".join(sql.split())).replace("%%", "%")
    return numbered, tuple(names)
