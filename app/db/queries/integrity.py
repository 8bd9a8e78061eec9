"""SQL of the integrity checks: each statement returns one row per problem, named in `example`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.db import timeouts
from app.db.queries import index_builds, pgvector_index

EXAMPLES = 5
"""How many problems of a check are named."""

COUNTED = """WITH found AS MATERIALIZED ({question})
SELECT (SELECT count(*) FROM found) AS total,
    ARRAY(SELECT example::text FROM found LIMIT {examples}) AS examples"""

PRODUCTS_WITHOUT_PICTURE = """
SELECT sku AS example FROM product AS p
WHERE NOT EXISTS (SELECT FROM product_picture AS pp WHERE pp.product_id = p.id)"""

# Manual writes may insert pictures some time before the products that show them.
PICTURES_WITHOUT_PRODUCT = """
SELECT id AS example FROM picture
WHERE NOT EXISTS (SELECT FROM product_picture AS pp WHERE pp.picture_id = picture.id)
    AND created_at < clock_timestamp() - interval '1 hour'"""

SHARED_PICTURES = """
SELECT shared.picture_id || ', of ' || shared.products || ' products such as ' || shared.sku
    AS example
FROM (
    SELECT pp.picture_id, count(*) AS products, min(p.sku) AS sku
    FROM product_picture AS pp JOIN product AS p ON p.id = pp.product_id
    GROUP BY pp.picture_id HAVING count(*) > CAST(:most AS bigint)
) AS shared ORDER BY shared.products DESC, shared.picture_id"""

PICTURES_WITHOUT_EMBEDDING = """
SELECT picture.id AS example FROM model CROSS JOIN picture
WHERE model.active AND NOT EXISTS (
    SELECT FROM embedding AS e WHERE e.model_id = model.id AND e.picture_id = picture.id)"""

OTHER_MODELS_INCOMPLETE = """
SELECT model.name AS example FROM model
WHERE NOT model.active AND (SELECT count(*) FROM picture)
    > (SELECT count(*) FROM embedding AS e WHERE e.model_id = model.id)"""

NO_ACTIVE_MODEL = """
SELECT 'model' AS example WHERE NOT EXISTS (SELECT FROM model WHERE active)"""

VECTORS_INVALID = """
SELECT e.picture_id AS example FROM embedding AS e JOIN model ON model.id = e.model_id
WHERE vector_dims(e.vec) <> model.dim OR l2_norm(e.vec) NOT BETWEEN 0.99 AND 1.01"""

# The constraints that `register_model` adds to each partition. Through to_jsonb, because older
# servers have no column `conenforced`.
CHECKS_MISSING = """
SELECT wanted.name AS example
FROM model, LATERAL (SELECT 'embedding_m' || model.id AS name) AS part, LATERAL (VALUES
    (part.name || '_model_id_check', 'model_id = ' || model.id || ')'),
    (part.name || '_dim_check', 'vector_dims(vec) = ' || model.dim || ')'),
    (part.name || '_unit_check', 'l2_norm(vec)')) AS wanted (name, says)
WHERE NOT EXISTS (
    SELECT FROM pg_constraint AS con
    WHERE con.conrelid = to_regclass(part.name) AND con.conname = wanted.name
        AND con.convalidated AND coalesce((to_jsonb(con) ->> 'conenforced')::boolean, true)
        AND strpos(pg_get_constraintdef(con.oid), wanted.says) > 0)"""

# Compared only at the same migration: older code does not know what a later migration removed.
# pgvector's indexes are not included: PGVECTOR_MISSING checks them.
CONSTRAINTS_MISSING = """
SELECT wanted.name AS example FROM unnest(string_to_array(:names, ' ')) AS wanted (name)
WHERE (SELECT version_num FROM alembic_version) = :revision
    AND to_regclass(wanted.name) IS NULL AND NOT EXISTS (
        SELECT FROM pg_constraint AS con
        WHERE con.connamespace = to_regnamespace('public') AND con.conname = wanted.name)"""

CONSTRAINTS_NOT_VALID = """
SELECT con.conrelid::regclass || '.' || con.conname AS example FROM pg_constraint AS con
WHERE con.connamespace = to_regnamespace('public') AND NOT con.convalidated
    AND con.conname !~ '^embedding_m[0-9]+_(model_id|dim|unit)_check$'"""

# Foreign keys prevent them, except while triggers are disabled (pg_restore --disable-triggers,
# session_replication_role); the keys then still count as valid.
DANGLING_REFERENCES = """
SELECT 'product_picture: product ' || product_id || ', picture ' || picture_id AS example
FROM product_picture AS pp
WHERE NOT EXISTS (SELECT FROM product AS p WHERE p.id = pp.product_id)
    OR NOT EXISTS (SELECT FROM picture AS i WHERE i.id = pp.picture_id)
UNION ALL
SELECT 'embedding: model ' || model_id || ', picture ' || picture_id
FROM embedding AS e
WHERE NOT EXISTS (SELECT FROM picture AS i WHERE i.id = e.picture_id)"""

INDEXES_INVALID = """
SELECT i.indexrelid::regclass AS example
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = to_regnamespace('public') AND NOT (i.indisvalid AND i.indisready)
    AND c.relname !~ '^embedding_m[0-9]+_(vec|ivf1|ivf2)_idx$'"""

PGVECTOR_MISSING = pgvector_index.MODELS_WITHOUT_INDEX

# In tables below 1 MB a bad plan does not matter.
NEVER_ANALYSED = """
SELECT oid::regclass AS example FROM pg_class
WHERE relnamespace = to_regnamespace('public') AND relkind = 'r' AND reltuples < 0
    AND pg_relation_size(oid) > 1048576"""

VERDICTS_WITHOUT_PRODUCT = """
SELECT sku AS example FROM (
    SELECT sku_a AS sku FROM duplicate_verdict UNION SELECT sku_b FROM duplicate_verdict) AS named
WHERE NOT EXISTS (SELECT FROM product AS p WHERE p.sku = named.sku)"""

EVENTS_WITHOUT_PRODUCT = """
SELECT sku AS example FROM (SELECT DISTINCT sku FROM search_event WHERE sku IS NOT NULL) AS named
WHERE NOT EXISTS (SELECT FROM product AS p WHERE p.sku = named.sku)"""

# A day more than `drop_search_partitions` leaves: a worker looks once an hour.
EVENTS_OVERDUE = """
SELECT c.oid::regclass AS example
FROM pg_inherits AS tree JOIN pg_class AS c ON c.oid = tree.inhrelid
WHERE tree.inhparent IN (to_regclass('search_request'), to_regclass('search_event'))
    AND c.relname ~ '_[0-9]{8}$' AND to_date(right(c.relname, 8), 'YYYYMMDD') + 2
        <= now() - CAST(:days AS double precision) * interval '1 day'"""

RUNS_UNFINISHED = """
SELECT id AS example FROM ingest_run
WHERE state = 'running' AND started_at < clock_timestamp() - interval '1 day'"""

BUILDS_FOREIGN = f"""
SELECT id AS example FROM index_build
WHERE state IN ('published', 'building') AND cluster <> {index_builds.CLUSTER}"""

# Valid only while no builder runs.
BUILDS_ABANDONED = """
SELECT id AS example FROM index_build WHERE state = 'building'"""

CHUNKS_RETIRED = """
SELECT DISTINCT c.build_id AS example
FROM index_chunk AS c JOIN index_build AS b ON b.id = c.build_id WHERE b.state <> 'published'"""


@dataclass(frozen=True, slots=True)
class DamageFound:
    """The number of problems, with the names of a few of them."""

    count: int
    examples: tuple[str, ...]


def check(connection: Connection, question: str, **values: Any) -> DamageFound:
    """Run one of the checks above, without a statement timeout."""
    timeouts.set_for_transaction(connection, statement_s=0)
    counted = COUNTED.format(question=question, examples=EXAMPLES)
    row = connection.execute(text(counted), values).one()
    return DamageFound(row.total, tuple(row.examples))


def pictures_without_product(connection: Connection, limit: int) -> list[int]:
    """Ids of up to `limit` pictures that no product shows."""
    sql = text(f"{PICTURES_WITHOUT_PRODUCT} LIMIT :limit")
    return list(connection.execute(sql, {"limit": limit}).scalars())


def never_analysed(connection: Connection) -> list[str]:
    """Tables that were never analysed, quoted for SQL."""
    return [str(name) for name in connection.execute(text(NEVER_ANALYSED)).scalars()]
