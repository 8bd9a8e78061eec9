"""SQL of the catalogue statistics: row counts, recent ingests and rejected rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.types import Model

MAX_REJECTS_COUNTED = 100_000
"""Counting the rejects of a run stops here."""

COUNTED_ROWS = 1_000_000
"""Products and pictures are counted up to this number of each. Beyond, PostgreSQL's statistics tell
how many rows there are: counting ten million took eight seconds, and what the page of the catalogue
shows forty."""

NEWEST_PICTURES = 100_000
"""Pictures that are searched for missing embeddings where rows are not counted."""

ESTIMATE = """(SELECT CASE WHEN reltuples > 0 THEN reltuples::bigint ELSE ({counted}) END
    FROM pg_class WHERE oid = {table})"""
"""Rows of a table by the statistics; they are counted where there are no statistics yet."""

PRODUCTS = ESTIMATE.format(table="'product'::regclass", counted="SELECT count(*) FROM product")
PICTURES = ESTIMATE.format(table="'picture'::regclass", counted="SELECT count(*) FROM picture")

VERDICTS = """SELECT count(*) FILTER (WHERE same) AS same,
    count(*) FILTER (WHERE NOT same) AS different FROM duplicate_verdict"""


@dataclass(frozen=True, slots=True)
class EmbeddedCount:
    """A model with the number of its embeddings, estimated where rows are not counted."""

    model: str
    dim: int
    active: bool
    embeddings: int


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One ingest run; `report` has its counts by name, or the `reason` of its failure.

    `state` is running, finished or failed; `rejects` is counted up to MAX_REJECTS_COUNTED.
    """

    id: int
    source: str
    model: str | None
    state: str
    report: Mapping[str, Any]
    started_at: datetime
    finished_at: datetime | None
    rejects: int


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row, or one picture of a row, that a run rejected, with the reason."""

    line: int | None
    sku: str | None
    image: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class CatalogCounts:
    """Row counts of the catalogue.

    `without_picture` counts products; `without_embedding` counts pictures, under the given model.
    `shared_pictures` is the number of pictures shown by several products, `sharing` the number of
    those products. `same_words` products share their identity key with another one, in
    `word_groups` groups. `same` and `different` count verdicts.

    If `estimated`, rows are not counted (COUNTED_ROWS): products and pictures are estimates,
    `without_embedding` counts among the NEWEST_PICTURES, and what only a pass over all rows tells
    is None.
    """

    products: int
    pictures: int
    without_embedding: int
    same: int
    different: int
    without_picture: int | None = None
    shared_pictures: int | None = None
    sharing: int | None = None
    word_groups: int | None = None
    same_words: int | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Numbers of products, of pictures, of embeddings under one model, and of pictures without one.

    If `estimated`, the first three are PostgreSQL's estimates, and the last counts among the
    NEWEST_PICTURES.
    """

    products: int
    pictures: int
    embeddings: int
    without_embedding: int
    estimated: bool = False


def counts(connection: Connection, model: Model) -> CatalogCounts:
    """The counts now, with `without_embedding` under this model."""
    rows = row_counts(connection, model)
    if rows.estimated:
        decided = connection.execute(text(f"SELECT * FROM ({VERDICTS}) AS verdicts")).one()
        return CatalogCounts(
            rows.products, rows.pictures, rows.without_embedding, decided.same, decided.different,
            estimated=True,
        )  # fmt: skip
    sql = f"""
        SELECT (SELECT count(*) FROM product) AS products,
            (SELECT count(*) FROM picture) AS pictures,
            (SELECT count(*) FROM product AS p WHERE NOT EXISTS (
                SELECT FROM product_picture WHERE product_id = p.id)) AS without_picture,
            (SELECT count(*) FROM picture AS pic WHERE NOT EXISTS (
                SELECT FROM embedding AS e
                WHERE e.model_id = :model AND e.picture_id = pic.id)) AS without_embedding,
            shared.shared_pictures, shared.sharing, words.word_groups, words.same_words,
            verdicts.same, verdicts.different
        FROM (
            SELECT count(DISTINCT picture_id) AS shared_pictures,
                count(DISTINCT product_id) AS sharing
            FROM product_picture JOIN (
                SELECT picture_id FROM product_picture
                GROUP BY picture_id HAVING count(*) > 1) AS several USING (picture_id)
        ) AS shared, (
            SELECT count(*) AS word_groups, coalesce(sum(members), 0)::bigint AS same_words
            FROM (SELECT count(*) AS members FROM product WHERE identity_key <> ''
                GROUP BY identity_key HAVING count(*) > 1) AS groups
        ) AS words, ({VERDICTS}) AS verdicts"""
    return CatalogCounts(**connection.execute(text(sql), {"model": model.id}).one()._asdict())


def row_counts(connection: Connection, model: Model) -> RowCounts:
    """The number of rows of the main tables, which is faster than `counts`."""
    if is_large(connection):
        return _estimated_rows(connection, model)
    sql = """SELECT (SELECT count(*) FROM product) AS products,
        (SELECT count(*) FROM picture) AS pictures,
        (SELECT count(*) FROM embedding WHERE model_id = :model) AS embeddings"""
    row = connection.execute(text(sql), {"model": model.id}).one()
    without = max(row.pictures - row.embeddings, 0)
    return RowCounts(row.products, row.pictures, row.embeddings, without)


def is_large(connection: Connection) -> bool:
    """Whether rows are not counted. Statistics that say twice as many are believed."""
    sql = """SELECT CASE WHEN (SELECT max(reltuples) FROM pg_class
            WHERE oid IN ('product'::regclass, 'picture'::regclass)) > 2 * :most THEN true
        ELSE greatest((SELECT count(*) FROM (SELECT FROM product LIMIT :most + 1) AS few),
            (SELECT count(*) FROM (SELECT FROM picture LIMIT :most + 1) AS few)) > :most END"""
    return bool(connection.execute(text(sql), {"most": COUNTED_ROWS}).scalar_one())


def estimated_products(connection: Connection) -> int:
    """How many products there are by PostgreSQL's statistics."""
    return int(connection.execute(text(f"SELECT {PRODUCTS}")).scalar_one())


def embedding_counts(connection: Connection) -> list[EmbeddedCount]:
    """The number of embeddings of each model, the active one first."""
    number = (
        _embeddings("m.id")
        if is_large(connection)
        else "(SELECT count(*) FROM embedding AS e WHERE e.model_id = m.id)"
    )
    sql = f"""
        SELECT m.name AS model, m.dim, m.active, {number} AS embeddings
        FROM model AS m ORDER BY m.active DESC, m.id"""
    return [EmbeddedCount(**row._asdict()) for row in connection.execute(text(sql))]


def _embeddings(model: str) -> str:
    """SQL of the estimated number of embeddings of a model, whose id is the expression `model`."""
    return ESTIMATE.format(
        table=f"to_regclass('embedding_m' || {model})",
        counted=f"SELECT count(*) FROM embedding AS e WHERE e.model_id = {model}",
    )


def _estimated_rows(connection: Connection, model: Model) -> RowCounts:
    sql = f"""SELECT {PRODUCTS} AS products, {PICTURES} AS pictures,
        {_embeddings(":model")} AS embeddings, (
            SELECT count(*) FROM (SELECT id FROM picture ORDER BY id DESC LIMIT :newest) AS pic
            WHERE NOT EXISTS (
                SELECT FROM embedding AS e WHERE e.model_id = :model AND e.picture_id = pic.id)
        ) AS without_embedding"""
    row = connection.execute(text(sql), {"model": model.id, "newest": NEWEST_PICTURES}).one()
    return RowCounts(
        row.products, row.pictures, row.embeddings, row.without_embedding, estimated=True
    )


def runs(connection: Connection, limit: int) -> list[RunSummary]:
    """The last `limit` ingest runs, newest first."""
    sql = """
        SELECT run.id, CASE run.kind WHEN 'delete' THEN 'deleted: ' ELSE '' END || run.source
                AS source, m.name AS model, run.state, run.report, run.started_at,
            run.finished_at, (SELECT count(*) FROM (
                SELECT FROM ingest_reject WHERE run_id = run.id LIMIT :counted) AS few) AS rejects
        FROM ingest_run AS run LEFT JOIN model AS m ON m.id = run.model_id
        ORDER BY run.id DESC LIMIT :limit"""
    rows = connection.execute(text(sql), {"limit": limit, "counted": MAX_REJECTS_COUNTED})
    return [RunSummary(**row._asdict()) for row in rows]


def rejects(connection: Connection, run_id: int, limit: int) -> Iterator[RejectedRow]:
    """The first `limit` rejects of a run, in source order."""
    sql = """SELECT line, sku, image, reason FROM ingest_reject
        WHERE run_id = :run ORDER BY id LIMIT :limit"""
    rows = connection.execute(text(sql), {"run": run_id, "limit": limit})
    return (RejectedRow(**row._asdict()) for row in rows)
