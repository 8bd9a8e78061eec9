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


def shared_pictures(most: int) -> IntegrityQuery:
    """Finds the pictures that more than `most` products show."""
    return IntegrityQuery(
        "pictures-shared", "info", f"pictures that more than {most} products show",
        integrity.SHARED_PICTURES,
        "A search for photos shows one of these products and lists the others under it. Replace "
        "placeholders by photos of the products.",
        None,
        {"most": str(most)},
    )  # fmt: skip


def events_overdue(days: float) -> IntegrityQuery:
    """Finds searches and events that should have been deleted after so many days."""
    return IntegrityQuery(
        "events-overdue", "warning", "days of searches and events that should be deleted by now",
        integrity.EVENTS_OVERDUE,
        "No worker deletes them. Run `lookalike check --repair` or `lookalike events prune`.",
        partial(repairs.drop_old_events, days=days),
        {"days": str(days)},
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
        "Vectors of another dimension or length could be written. Add the check as "
        "`register_model` does, or ALTER TABLE … VALIDATE CONSTRAINT.",
    ),
    IntegrityQuery(
        "rules-gone", "error", "constraints and indexes that are gone",
        integrity.CONSTRAINTS_MISSING,
        "Rows that they forbid could be written, and searches may be slow. Create them as the "
        "migrations do (`alembic upgrade head --sql` prints the statements).",
        None,
        {"names": _rule_names(), "revision": SCHEMA_REVISION},
    ),
    IntegrityQuery(
        "constraints-not-valid", "error", "constraints that older rows may violate",
        integrity.CONSTRAINTS_NOT_VALID,
        "Run ALTER TABLE … VALIDATE CONSTRAINT; it names a row that violates the constraint.",
    ),
    IntegrityQuery(
        "rows-to-nowhere", "error", "rows whose product or picture is gone",
        integrity.DANGLING_REFERENCES,
        "They were written while foreign keys were off. Delete them, or restore the products and "
        "pictures that they refer to from a backup.",
    ),
    IntegrityQuery(
        "vectors-unfit", "error", "pictures whose vector has the wrong dimension or length",
        integrity.VECTORS_INVALID,
        f"Delete those rows of `embedding`. {LOAD_AGAIN}",
    ),
    IntegrityQuery(
        "pictures-not-embedded", "error", "pictures without an embedding under the active model",
        integrity.PICTURES_WITHOUT_EMBEDDING,
        f"No search finds them. {LOAD_AGAIN}",
    ),
    IntegrityQuery(
        "other-models-incomplete", "info", "other models without embeddings of all pictures",
        integrity.OTHER_MODELS_INCOMPLETE,
        "Run `lookalike model embed NAME` before activating one of them.",
    ),
    IntegrityQuery(
        "pictures-unshown", "warning", "pictures that no product shows",
        integrity.PICTURES_WITHOUT_PRODUCT,
        "They take space in the database and in the index. Run `lookalike check --repair`.",
        repairs.sweep,
    ),
    IntegrityQuery(
        "products-without-picture", "info", "products without a picture",
        integrity.PRODUCTS_WITHOUT_PICTURE,
        "No search finds them, by pictures or by words.",
    ),
    IntegrityQuery(
        "verdicts-on-nothing", "info", "skus in verdicts that no product has",
        integrity.VERDICTS_WITHOUT_PRODUCT,
        "The verdicts apply again when a product with the sku is loaded.",
    ),
    IntegrityQuery(
        "events-on-nothing", "info", "skus in events that no product has",
        integrity.EVENTS_WITHOUT_PRODUCT,
        "Those products were deleted since, or a client sends other ids than skus.",
    ),
    IntegrityQuery(
        "runs-left", "warning", "loads that began more than a day ago and did not end",
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
        integrity.PGVECTOR_MISSING,
        "Searches without a build compare all embeddings. Run `lookalike check --repair` as the "
        "role that migrates; its worker builds it too.",
        repairs.maintain_fallback,
    ),
    IntegrityQuery(
        "never-analysed", "warning", "tables without statistics for PostgreSQL's planner",
        integrity.NEVER_ANALYSED,
        "Searches with filters may take the slow path. Run ANALYZE.",
        repairs.analyse,
    ),
)  # fmt: skip
