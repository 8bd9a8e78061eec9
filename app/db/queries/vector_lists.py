"""Several lists of nearest products in one SQL statement, each to the nearest of several vectors.

It is the statement of `single_statement` for a photo with objects: one list for the whole photo and
one for each object, all in one snapshot, with the details of every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from app.db.halfvec_arrays import HalfvecArray
from app.db.queries import (
    filter_snapshot,
    fold_parts,
    index_builds,
    index_delta,
    models,
    products,
)
from app.db.queries.filter_snapshot import FilterIdList
from app.db.queries.fold_parts import CALIBRATIONS, PICTURES, SHARING, VERDICTS
from app.db.queries.nearest import (
    EVERYTHING,
    Candidates,
    FilterClause,
    array_literal,
    candidates_from_rows,
    is_complete,
)
from app.db.queries.single_statement import (
    VECTOR_COLUMN,
    VECTOR_JOIN,
    PageExtras,
    checked_rows,
    numbered,
)
from app.types import Build, Model, Vector

# Each nominee is looked up by the index, so that no plan compares all nominees with all others:
# these sessions join without hash tables. A nominee counts only in the version that the build
# read; every row changed since is compared with each vector.
NEAR = """
WITH asked AS MATERIALIZED (
    SELECT number, list, q, CAST(nominated AS bigint[]) AS nominated, known
    FROM unnest(CAST(%(queries)s AS halfvec[]), CAST(%(lists)s AS bigint[]),
        CAST(%(nominated)s AS text[]), CAST(%(known)s AS bigint[]))
        WITH ORDINALITY AS given (q, list, nominated, known, number)
), delta AS MATERIALIZED (
    (SELECT e.picture_id, e.vec FROM embedding AS e
    WHERE e.model_id = {model}
        AND e.changed_in >= pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))
    ORDER BY e.changed_in LIMIT %(allowed)s)
  UNION ALL
    (SELECT e.picture_id, e.vec FROM embedding AS e
    WHERE e.model_id = {model} AND e.changed_in = ANY(CAST(%(in_progress)s AS xid8[]))
    ORDER BY e.changed_in LIMIT %(allowed)s)
), {moved}nominee AS MATERIALIZED (
    SELECT asked.list, asked.number, e.picture_id, e.vec <=> asked.q AS distance
    FROM asked JOIN embedding AS e
        ON e.model_id = {model} AND e.picture_id = ANY(asked.nominated)
        AND pg_visible_in_snapshot(e.changed_in, CAST(%(snapshot)s AS pg_snapshot))
), hit AS MATERIALIZED (
    SELECT e.list, e.number, e.picture_id, e.distance, false AS fresh
    FROM nominee AS e WHERE true{shown_nominee}
  UNION ALL
    SELECT asked.list, asked.number, near.picture_id, near.distance, true
    FROM asked CROSS JOIN LATERAL (
        SELECT e.picture_id, e.vec <=> asked.q AS distance
        FROM (SELECT * FROM delta{also}) AS e
        WHERE (SELECT count(*) FROM delta) < CAST(%(allowed)s AS bigint){shown}
        ORDER BY distance, e.picture_id LIMIT %(n)s) AS near
), counted AS MATERIALIZED (
    SELECT asked.number, known.unchanged, known.reach, seen.*
    FROM asked CROSS JOIN LATERAL (
        SELECT count(*) AS unchanged, (array_agg(distance ORDER BY distance))[
            greatest(count(*) * asked.known / cardinality(asked.nominated), 1)] AS reach
        FROM nominee WHERE nominee.number = asked.number
    ) AS known CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE NOT fresh) AS held, count(*) FILTER (WHERE fresh) AS fresh,
            max(distance) FILTER (WHERE fresh) AS farthest
        FROM hit WHERE hit.number = asked.number
    ) AS seen
)"""
"""The nominees and the delta by vector, and what is counted of each (`counted`), as in
`nearest.HIT_COUNTS` with `index_delta.BUILD_COUNTS`."""

LISTED = """
, near AS (
    SELECT DISTINCT ON (list, picture_id) list, number, picture_id, distance
    FROM hit ORDER BY list, picture_id, distance, number
), best AS MATERIALIZED (
    SELECT DISTINCT ON (near.list, pp.product_id)
        near.list, pp.product_id, near.picture_id, near.distance
    FROM near JOIN product_picture AS pp USING (picture_id){passing}
    WHERE pp.product_id <> ALL(CAST(%(excluded)s AS bigint[]))
        AND near.picture_id <> ALL(CAST(%(hidden)s AS bigint[]))
    ORDER BY near.list, pp.product_id, near.distance, near.number, near.picture_id
), merging AS MATERIALIZED (
    SELECT CASE WHEN CAST(%(lead)s AS double precision) IS NULL THEN true ELSE coalesce((
        SELECT (SELECT min(distance) FROM best WHERE list = 1) - first.distance
            + CAST(%(gain)s AS double precision) * ((e.vec <=> asked.q) - first.distance)
            >= CAST(%(lead)s AS double precision)
        FROM (SELECT picture_id, distance FROM best
            WHERE list = 2 ORDER BY distance, picture_id LIMIT 1) AS first
        JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = first.picture_id
        JOIN asked ON asked.list = 1
        ORDER BY asked.number LIMIT 1), true) END AS yes
), ranked AS (
    SELECT best.*, count(*) OVER (PARTITION BY list, picture_id) > 1 AS repeated,
        row_number() OVER (PARTITION BY list ORDER BY distance, product_id) AS place
    FROM best
), listed AS MATERIALIZED (
    SELECT ranked.*, {merges} AS merges, ranked.place <= CASE WHEN {merges}
        THEN CAST(%(thumbnails)s AS bigint) ELSE CAST(%(thumbnails_apart)s AS bigint) END
        AS detailed
    FROM ranked WHERE ranked.place <= CASE WHEN {merges}
        THEN CAST(%(k)s AS bigint) ELSE CAST(%(k_apart)s AS bigint) END
), own AS MATERIALIZED (
    SELECT own.*, is_first AND identity_key <> ''
        AND count(*) FILTER (WHERE is_first) OVER (PARTITION BY identity_key) > 1 AS compared
    FROM (
        SELECT listed.*, p.identity_key, {fields},
            row_number() OVER (PARTITION BY listed.product_id ORDER BY listed.list) = 1 AS is_first,
            row_number() OVER (ORDER BY listed.list, listed.place) AS row
        FROM listed JOIN product AS p ON p.id = listed.product_id
    ) AS own
)"""
"""From the hits to the first products of each list, with those of the pictures that are shown
(`detailed`): more in lists that are merged into one. Of equal distances that of the first vector
counts, then that of the picture with the smaller id."""

MERGES = """ranked.list = 1
        OR (ranked.list <= CAST(%(merged)s AS bigint) AND (SELECT yes FROM merging))"""
"""Whether a list counts on the photo's own page."""

ROWS = """
SELECT page.list, page.product_id, page.picture_id, page.distance, told.*,
    {fields}, pp.uri, pic.thumbnail{columns}
FROM (SELECT 1) AS one LEFT JOIN (
    own AS page JOIN product_picture AS pp USING (product_id, picture_id)
    LEFT JOIN picture AS pic ON pic.id = page.picture_id AND page.detailed{joins}) ON true
LEFT JOIN LATERAL (
    SELECT (SELECT count(*) FROM delta) AS delta_rows,
        (SELECT id FROM model WHERE active) AS active, ({newest}) AS newest, {lag} AS lag,
        {usable} AS usable, (SELECT yes FROM merging) AS leads,
        (SELECT jsonb_agg(to_jsonb(counted) ORDER BY number) FROM counted) AS counted
) AS told ON coalesce(page.row, 1) = 1
ORDER BY page.row"""
"""One row at least; what is told of all is in the first one only."""

FOLD_COLUMNS = f""", CASE WHEN page.repeated THEN {SHARING} END AS sharing,
    CASE WHEN page.detailed AND page.merges THEN {{same_words}} END AS same_words,
    page.compared, CASE WHEN page.compared THEN {PICTURES} END AS pictures,
    CASE WHEN page.row = 1 THEN {VERDICTS} END AS verdicts,
    CASE WHEN page.row = 1 THEN {CALIBRATIONS} END AS calibrations"""
"""As `fold_parts.FOLD_COLUMNS`; the pictures are in the first row of a product only. `same_words`
are counted of the products that may be on the photo's own page."""


@dataclass(frozen=True, slots=True)
class Nominated:
    """What the index nominates for a vector: `ids`, `seen_to` and `known` as in
    `index_delta.nearest`."""

    ids: NDArray[np.int64]
    seen_to: float | None
    known: int | None


@dataclass(frozen=True, slots=True)
class Lead:
    """What the second list needs to count in the page of the first: the best similarity of the
    second less that of the first, plus the share `gain` of what the best picture of the second is
    more similar to it than to the first vector, is at least `least`."""

    least: float
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class ListsRequest:
    """A search of the first products of several lists, each by its vectors.

    Vectors have shape (dim,) and are rounded to float16; `n` pictures are nominated for each. Of
    the first list `k` products are returned, and the thumbnails of the first `thumbnails`; of the
    others `k_apart` and `thumbnails_apart`, but of the first `merged` lists as many as of the first
    if the second has the `lead` (None: always).
    `listed`, `excluded`, `hidden` and `extras` are as in `StatementRequest`.
    """

    model: Model
    build: Build
    lists: Sequence[Sequence[Vector]]
    k: int
    k_apart: int
    thumbnails: int
    thumbnails_apart: int
    merged: int
    lead: Lead | None = None
    filter_clause: FilterClause = EVERYTHING
    excluded: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()
    extras: PageExtras | None = None
    n: int = 0
    listed: FilterIdList | None = None


@dataclass(frozen=True, slots=True)
class ListsResult:
    """The candidates of each list with their rows, for `products.product_from_row`, how many
    products of it were asked for, and whether the second list has the lead; the rest as in
    `StatementResult`."""

    candidates: Sequence[Candidates]
    rows: Sequence[Sequence[Any]]
    ks: Sequence[int]
    leads: bool
    delta_rows: int
    lag: float | None
    deeper: bool = False

    def is_complete(self, _k: int) -> bool:
        """Whether examining more pictures cannot change any list."""
        return all(is_complete(each, k) for each, k in zip(self.candidates, self.ks, strict=True))


@dataclass(frozen=True, slots=True)
class _Counted:
    """What is counted of one vector, as a row for `index_delta.merged_candidates`. The products of
    all hits are looked up, however many an index of compressed vectors nominates."""

    number: int
    unchanged: int
    reach: float | None
    held: int
    fresh: int
    farthest: float | None
    near_to: None = None
    product_id: None = None


def search(
    connection: psycopg.Connection,
    request: ListsRequest,
    nominated: Sequence[Nominated],
    *,
    cluster: str,
    max_delta_rows: int,
) -> ListsResult | None:
    """The lists, with the details of their rows. `nominated` are of all vectors in their order.

    Returns None unless the model is the active one and the build the newest usable one.
    `connection` must be in autocommit mode and have pgvector's types registered. Raises
    FilterListOutdated.
    """
    values = _values(request, nominated)
    values |= {"cluster": cluster, "allowed": str(max_delta_rows + 1)}
    kind = None if request.extras is None else (request.extras.folds, request.extras.vectors)
    sql, names = _statement(request.model.id, request.filter_clause.condition, kind)
    rows = checked_rows(connection, request, sql, [values[name] for name in names])
    if rows is None:
        return None
    first = rows[0]
    counted = iter(zip((_Counted(**each) for each in first.counted), nominated, strict=True))
    by_list = [[row for row in rows if row.list == n] for n in range(1, len(request.lists) + 1)]
    candidates = [
        _candidates(own, list(islice(counted, len(vectors))), request.n)
        for own, vectors in zip(by_list, request.lists, strict=True)
    ]
    merged = request.merged if first.leads else 1
    ks = [request.k if place < merged else request.k_apart for place in range(len(by_list))]
    lag = None if first.lag is None else float(first.lag)
    return ListsResult(candidates, by_list, ks, first.leads, first.delta_rows, lag)


def _candidates(
    rows: Sequence[Any], vectors: Sequence[tuple[_Counted, Nominated]], n: int
) -> Candidates:
    """The candidates of a list: none of its vectors may miss a picture nearer than `seen_to`."""
    parts = [
        index_delta.merged_candidates([told], len(each.ids), each.seen_to, each.known, n)
        for told, each in vectors
    ]
    ends = [part.seen_to for part in parts if part.seen_to is not None]
    examined = sum(part.examined for part in parts)
    vanished = sum(part.vanished for part in parts)
    return candidates_from_rows(rows, min(ends, default=None), examined, vanished)


def _values(request: ListsRequest, nominated: Sequence[Nominated]) -> dict[str, Any]:
    """The values that are bound in the statement, except the cluster and the size of the delta."""
    asked = [(number, vector) for number, own in enumerate(request.lists, 1) for vector in own]
    values: dict[str, Any] = {
        "queries": HalfvecArray(np.stack([vector for _, vector in asked])),
        "lists": array_literal(number for number, _ in asked),
        "nominated": [array_literal(each.ids.tolist()) for each in nominated],
        "known": array_literal("NULL" if each.known is None else each.known for each in nominated),
        "snapshot": request.build.snapshot,
        "in_progress": request.build.in_progress,
        "excluded": array_literal(request.excluded),
        "hidden": array_literal(request.hidden),
        # As text, as in `single_statement.search`.
        "n": str(request.n),
        "k": str(request.k),
        "k_apart": str(request.k_apart),
        "thumbnails": str(request.thumbnails),
        "thumbnails_apart": str(request.thumbnails_apart),
        "merged": str(request.merged),
        "lead": None if request.lead is None else str(request.lead.least),
        "gain": None if request.lead is None else str(request.lead.gain),
        **(request.listed.values if request.listed else {}),
        **request.filter_clause.values,
    }
    if request.extras is not None and request.extras.folds:
        values["earlier"] = list(request.extras.earlier)
        values["shared"] = str(request.extras.shared)
    return values


@lru_cache(maxsize=64)
def _statement(
    model_id: int, condition: str, kind: tuple[bool, bool] | None
) -> tuple[str, tuple[str, ...]]:
    """The statement with numbered placeholders, and the names of their values in order; `kind` as
    in `single_statement`."""
    parts = FilterClause(condition).parts | (
        filter_snapshot.template_parts(model_id, "e.vec") if condition else {}
    )
    sql = (NEAR + LISTED).format(
        model=model_id, fields=fold_parts.PRODUCT_FIELDS, merges=MERGES, **parts
    )
    folds, vectors = kind or (False, False)
    columns, joins = "", ""
    if vectors:
        columns, joins = VECTOR_COLUMN, VECTOR_JOIN.format(model=model_id)
    if folds:
        columns += FOLD_COLUMNS.format(
            model=model_id, same_words=products.COUNT_SAME_WORDS.format(product="page")
        )
    sql += ROWS.format(
        newest=index_builds.NEWEST.format(model=model_id, cluster="%(cluster)s"),
        lag=models.LAG,
        usable=filter_snapshot.USABLE if condition else "true",
        fields=", ".join(f"page.{name}" for name in products.TYPES),
        columns=columns,
        joins=joins,
    )
    return numbered(sql)
