"""Integrity checks of rows, constraints, triggers and indexes that are one SQL query each."""

from __future__ import annotations

from functools import partial

from app.db.queries import change_stamps, integrity
from app.db.queries.change_stamps import StampTrigger
from app.db.schema import SCHEMA_REVISION, metadata
from app.operations.integrity import repairs
from app.operations.integrity.findings import IntegrityQuery

LOAD_AGAIN = "Load those products again with `lookalike ingest`."


def _stamp_off(stamp: StampTrigger) -> IntegrityQuery:
    return IntegrityQuery(
        "stamp-off", "error", f"tables whose changed rows are not stamped ({stamp.table})",
        change_stamps.UNSTAMPED,
        "An index could not tell what changed after it. Run `lookalike check --repair`; if it "
        "stays, a later trigger of yours overrules the stamp: rename or drop that one.",
        partial(repairs.enable_stamp, stamp=stamp),
        {"table": stamp.table, "function": stamp.function},
    )  # fmt: skip


def _future(stamp: StampTrigger) -> IntegrityQuery:
    return IntegrityQuery(
        "rows-from-the-future", "error", f"rows of {stamp.table} stamped in the future",
        change_stamps.future_rows(stamp),
        "They came with another server's dump and stay in every delta. Run `lookalike migrate`, "
        "which restamps them.",
        partial(repairs.restamp, stamp=stamp),
    )  # fmt: skip


def _rule_names() -> str:
    """The names of all constraints and indexes of the schema, separated by spaces."""
    tables = metadata.tables.values()
    constraints = [str(rule.name) for table in tables for rule in table.constraints]
    indexes = [str(index.name) for table in tables for index in table.indexes]
    return " ".join(constraints + indexes)


QUERIES = (
    IntegrityQuery(
        "no-active-model", "error", "catalogue without an active model", integrity.NO_ACTIVE_MODEL,
        "Run `lookalike init`.",
    ),
    *map(_stamp_off, change_stamps.STAMPS),
    *map(_future, change_stamps.STAMPS),
    IntegrityQuery(
        "checks-missing", "error", "checks of embeddings that are missing, changed or not valid",
        integrity.CHECKS_MISSING,
        "Vectors of another dimension or length could come in. Add the check as `register_model` "
        "does, or ALTER TABLE … VALIDATE CONSTRAINT.",
    ),
    IntegrityQuery(
        "rules-gone", "error", "constraints and indexes that are gone",
        integrity.CONSTRAINTS_MISSING,
        "Rows that they forbid could come in, and searches may be slow. Make them as the "
        "migrations do (`alembic upgrade head --sql` shows it).",
        None,
        {"names": _rule_names(), "revision": SCHEMA_REVISION},
    ),
    IntegrityQuery(
        "constraints-not-valid", "error", "constraints that old rows may break",
        integrity.CONSTRAINTS_NOT_VALID,
        "Run ALTER TABLE … VALIDATE CONSTRAINT; it names the row that breaks one.",
    ),
    IntegrityQuery(
        "rows-to-nowhere", "error", "rows whose product or picture is gone",
        integrity.DANGLING_REFERENCES,
        "They came in while foreign keys were off. Delete them, or bring back from a backup what "
        "they name.",
    ),
    IntegrityQuery(
        "vectors-unfit", "error", "pictures with a vector not of length 1, or too short or long",
        integrity.VECTORS_INVALID,
        f"Delete those rows of `embedding`. {LOAD_AGAIN}",
    ),
    IntegrityQuery(
        "pictures-not-embedded", "error", "pictures without an embedding under the active model",
        integrity.PICTURES_WITHOUT_EMBEDDING,
        f"No search finds them. {LOAD_AGAIN}",
    ),
    IntegrityQuery(
        "other-models-incomplete", "info", "other models that do not know all pictures",
        integrity.OTHER_MODELS_INCOMPLETE,
        "Of no matter, unless one of them is to become the active one.",
    ),
    IntegrityQuery(
        "pictures-unshown", "warning", "pictures that no product shows",
        integrity.PICTURES_WITHOUT_PRODUCT,
        "They take room and places in the index. Run `lookalike check --repair`.",
        repairs.sweep,
    ),
    IntegrityQuery(
        "products-without-picture", "info", "products without a picture",
        integrity.PRODUCTS_WITHOUT_PICTURE,
        "No search by picture finds them; words do not either.",
    ),
    IntegrityQuery(
        "verdicts-on-nothing", "info", "skus in verdicts that no product has",
        integrity.VERDICTS_WITHOUT_PRODUCT,
        "The verdicts hold again when such a product is loaded.",
    ),
    IntegrityQuery(
        "runs-left", "warning", "loads that began more than a day ago and never ended",
        integrity.RUNS_UNFINISHED,
        "Load those sources again, and run `lookalike check --repair`.",
        repairs.fail_abandoned_runs,
    ),
    IntegrityQuery(
        "indexes-invalid", "error", "indexes that PostgreSQL does not use",
        integrity.INDEXES_INVALID,
        "An interrupted CREATE INDEX left them. Run REINDEX INDEX CONCURRENTLY on each.",
    ),
    IntegrityQuery(
        "pgvector-index-missing", "error", "models without pgvector's index",
        integrity.HNSW_MISSING,
        "A load was interrupted. Searches without a build compare all embeddings. Run `lookalike "
        "check --repair` as the role that migrates.",
        repairs.build_hnsw,
    ),
    IntegrityQuery(
        "never-analysed", "warning", "tables the planner knows nothing of",
        integrity.NEVER_ANALYSED,
        "Searches with filters may take the slow path. Run ANALYZE.",
        repairs.analyse,
    ),
)  # fmt: skip
