"""Undoes a run: products that it changed or deleted become as they were, what it added goes.

A product that was changed since is left as it is and reported. Each batch is one transaction under
the write lock, and the undo is a run itself, so that it can be undone, and repeated when it was
interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine

from app.catalog import batch_delete, batch_write
from app.catalog.batch_write import Batch, IdsBySha256, PlannedWrite
from app.catalog.entries import ProductEntry
from app.catalog.history import HistoryLimits, is_as_before, restored
from app.catalog.ingest_run import IngestRun, ingest_run
from app.db import locks
from app.db.engine import check_schema
from app.db.pipeline import open_pipeline
from app.db.queries import history, models, pictures, products
from app.db.queries.history import HistoryRow
from app.db.queries.products import StoredProduct
from app.errors import BadInput
from app.types import KeptRun, Model, PictureData

BATCH_PRODUCTS = 64
"""Products that are restored in one transaction; each may have many thumbnails."""

MAX_NAMED = 20
"""Products changed since that a report names."""


class Outcome(StrEnum):
    """What an undo does with one product."""

    RESTORE = "restored"
    DELETE = "deleted"
    KEEP = "as_before"
    LEAVE = "changed_since"


@dataclass(slots=True)
class UndoReport:
    """The result of undoing `run`; `undo` is the run that undoes it.

    Products: `restored` as they were, `deleted` because the run had added them, `as_before`
    already, and `changed_since`, which are left; `left` names the first of these. Pictures that
    are kept nowhere any more are in `pictures_lost`; `without_embedding` counts restored pictures
    by the name of the maintained model that has no embedding of them.
    """

    run: int
    undo: int
    restored: int = 0
    deleted: int = 0
    as_before: int = 0
    changed_since: int = 0
    pictures_lost: int = 0
    left: list[str] = field(default_factory=list)
    without_embedding: dict[str, int] = field(default_factory=dict)

    @property
    def products(self) -> int:
        """The number of products so far."""
        return self.restored + self.deleted + self.as_before + self.changed_since

    def as_dict(self) -> dict[str, Any]:
        """The counts by name."""
        return asdict(self)


UndoProgress = Callable[[UndoReport], object]
"""Called after every batch with the report so far."""


def undo(
    engine: Engine,
    run_id: int,
    limits: HistoryLimits,
    progress: UndoProgress = lambda report: None,
) -> UndoReport:
    """Undo a run. Raises BadInput for a run that is unknown, still running, or not kept."""
    with _exclusively(engine, run_id) as kept:
        about = "" if kept.kind == "undo" else f" ({kept.source})"
        source = f"undo of run {kept.id}{about}"
        with ingest_run(engine, source, None, limits, undoes=run_id) as run:
            if run.id is None:
                raise BadInput("An undo must be recorded.")
            report = UndoReport(run_id, run.id)
            after = 0
            while (last := _undo_batch(engine, report, after, run)) is not None:
                after = last
                progress(report)
            run.finished(report.as_dict())
            return report


def undoable_runs(engine: Engine, limit: int) -> list[KeptRun]:
    """The last runs that can be undone, the newest first."""
    with engine.connect() as connection:
        check_schema(connection)
        return history.kept_runs(connection, limit)


@contextmanager
def _exclusively(engine: Engine, run_id: int) -> Iterator[KeptRun]:
    """Hold the lock of the run, so that it is over, and no other undo takes it back."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        check_schema(connection)
        with locks.ingest_run(connection, run_id) as taken:
            kept = history.kept_run(connection, run_id)
            if kept is None:
                raise BadInput(f"There is no run {run_id}; `lookalike undo` lists the last ones.")
            if not taken:
                raise BadInput(
                    f"Run {run_id} is running, or being undone; wait until it has ended."
                )
            if kept.bytes <= 0:
                raise BadInput(
                    f"Run {run_id} cannot be undone: it changed nothing, or what it changed is not "
                    "kept any more. `lookalike undo` lists the runs that can be."
                )
            yield kept


def _undo_batch(engine: Engine, report: UndoReport, after: int, run: IngestRun) -> int | None:
    """Undo the next products of the run; returns the id of the last, None if there was none."""
    run_id = run.history_id()
    with locks.transaction(engine) as connection:
        with open_pipeline(connection) as pipeline:
            locks.begin_write(pipeline)
            maintained = models.maintained_in(pipeline)
        rows = history.rows_after(connection, report.run, after, BATCH_PRODUCTS)
        if not rows:
            return None
        counts = _Batch(connection, rows, maintained(), run_id).undo()
    _add(report, counts)
    return rows[-1].id


def _add(report: UndoReport, counts: UndoReport) -> None:
    """Add the counts of a batch, after it is committed."""
    for name in ("restored", "deleted", "as_before", "changed_since", "pictures_lost"):
        setattr(report, name, getattr(report, name) + getattr(counts, name))
    report.left += counts.left[: MAX_NAMED - len(report.left)]
    for name, count in counts.without_embedding.items():
        report.without_embedding[name] = report.without_embedding.get(name, 0) + count


class _Batch:
    """Some products of one run, in a transaction that has the write lock."""

    def __init__(
        self,
        connection: Connection,
        rows: Sequence[HistoryRow],
        maintained: Sequence[Model],
        run_id: int | None,
    ) -> None:
        self._connection = connection
        self._rows = rows
        self._models = maintained
        self._run_id = run_id
        self._counts = UndoReport(0, 0)

    def undo(self) -> UndoReport:
        """Restore, delete or leave each product; returns the counts."""
        skus = [row.sku for row in self._rows]
        history.lock_products(self._connection, skus)
        stored = products.by_sku(self._connection, skus)
        states = history.states(self._connection, skus)
        outcomes = {
            row.sku: outcome(row, stored.get(row.sku), states.get(row.sku)) for row in self._rows
        }
        for sku, each in outcomes.items():
            setattr(self._counts, each.value, getattr(self._counts, each.value) + 1)
            if each is Outcome.LEAVE:
                self._counts.left.append(sku)
        gone = [sku for sku, each in outcomes.items() if each is Outcome.DELETE]
        if gone:
            batch_delete.delete(self._connection, gone, self._run_id)
        self._restore([row for row in self._rows if outcomes[row.sku] is Outcome.RESTORE], stored)
        return self._counts

    def _restore(self, rows: Sequence[HistoryRow], stored: Mapping[str, StoredProduct]) -> None:
        entries = [restored(row.sku, row.before or {}, stored.get(row.sku)) for row in rows]
        kept = self._kept_pictures(entries)
        entries = [self._without_lost(entry, kept) for entry in entries]
        data = {sha256: each for sha256, each in kept.items() if each is not None}
        writes: list[PlannedWrite] = batch_write.plan(entries, stored)
        batch = Batch([write.entry for write in writes], data)
        batch_write.apply(self._connection, batch, writes, self._embed, self._run_id)
        anew = [row.id for row in rows if row.after is None]
        if anew:
            history.restore_creation_times(self._connection, self._rows[0].run_id, anew)

    def _kept_pictures(self, entries: Sequence[ProductEntry]) -> dict[bytes, PictureData | None]:
        """The pictures of the entries that exist (None) or are kept in the history, by sha256."""
        from app.images.colours import colours_of_thumbnail  # loads Pillow

        named = sorted({ref.sha256 for entry in entries for ref in entry.pictures})
        there = pictures.ids(self._connection, named)
        missing = [sha256 for sha256 in named if sha256 not in there]
        kept = history.pictures(self._connection, missing)
        return dict.fromkeys(there) | {
            sha256: replace(each, colours=colours_of_thumbnail(each.thumbnail))
            for sha256, each in kept.items()
        }

    def _without_lost(
        self, entry: ProductEntry, kept: Mapping[bytes, PictureData | None]
    ) -> ProductEntry:
        shown = tuple(ref for ref in entry.pictures if ref.sha256 in kept)
        self._counts.pictures_lost += len(entry.pictures) - len(shown)
        return replace(entry, pictures=shown)

    def _embed(self, new: IdsBySha256, _ids: IdsBySha256) -> None:
        missing = history.restore_embeddings(self._connection, self._models, list(new.values()))
        names = {model.id: model.name for model in self._models}
        for model_id, count in missing.items():
            if count:
                self._counts.without_embedding[names[model_id]] = count


def outcome(row: HistoryRow, stored: StoredProduct | None, state: bytes | None) -> Outcome:
    """What undoing does, from what is stored now and its `history.STATE`."""
    if row.before is None:
        if stored is None:
            return Outcome.KEEP
        return Outcome.DELETE if state == row.after else Outcome.LEAVE
    if stored is None:
        return Outcome.RESTORE if row.after is None else Outcome.LEAVE
    if row.after is not None and state == row.after:
        return Outcome.RESTORE
    return Outcome.KEEP if is_as_before(stored, row.before) else Outcome.LEAVE
