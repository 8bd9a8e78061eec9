"""IngestRun: the record of one ingest, written to the database while it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from app.catalog import history
from app.catalog.history import DEFAULT_LIMITS, HistoryLimits
from app.db import locks
from app.db.queries import history as history_rows
from app.db.queries import ingest_runs
from app.db.text import escaped
from app.errors import LookalikeError
from app.types import Model, ProgressCallback

PRUNE_BATCH = 500
"""Skus that `unseen` yields at a time."""

_log = logging.getLogger("lookalike.ingest")


@dataclass(frozen=True, slots=True)
class Unseen:
    """How many of `total` recorded products the run has not seen, with the first skus."""

    count: int
    total: int
    examples: tuple[str, ...]


class IngestRun:
    """Records rejects and seen skus of one run, on its own connection.

    The skus are stored in temporary tables, so that memory does not grow with the source. Without
    an id nothing else is written: it is a dry run.
    """

    def __init__(
        self, connection: Connection, run_id: int | None, history: HistoryLimits = DEFAULT_LIMITS
    ) -> None:
        self._connection = connection
        self._limits = history
        self._recording = run_id is not None and history.days > 0
        self.id = run_id

    @property
    def is_kept(self) -> bool:
        """Whether what the run changes is kept, so that it can be undone."""
        return self.id is not None and self._recording

    def history_id(self, notify: ProgressCallback = _log.warning) -> int | None:
        """The id under which the next changes are kept; None if they are not.

        A run that exceeds the limits alone is forgotten, and no more is kept of it.
        """
        if self.id is None or not self._recording:
            return None
        if history_rows.size(self._connection, self.id) > self._limits.max_bytes:
            self._recording = False
            history.forget(self._connection, self.id)
            notify(
                f"Run {self.id} cannot be undone: it changes more than the "
                f"{self._limits.megabytes:,} MB that LOOKALIKE_HISTORY_MB keeps."
            )
            return None
        return self.id

    def reject(self, rejects: Sequence[Mapping[str, Any]]) -> None:
        """Record refused rows and pictures: mappings with line, sku, image, reason."""
        if rejects and self.id is not None:
            ingest_runs.add_rejects(
                self._connection,
                self.id,
                [{name: _escaped(value) for name, value in each.items()} for each in rejects],
            )

    def seen_before(self, lines: Mapping[str, int]) -> dict[str, int]:
        """Record skus with their lines; returns those seen before, with the line of each."""
        return ingest_runs.seen_before(self._connection, list(lines), list(lines.values()))

    def remember_products(self) -> None:
        """Record the existing products before the source is read; only these may be pruned."""
        ingest_runs.snapshot_products(self._connection)

    def unseen(self) -> Iterator[list[str]]:
        """Recorded products that were not seen, in batches; delete each before taking the next."""
        return ingest_runs.unseen_skus(self._connection, PRUNE_BATCH)

    def count_unseen(self, examples: int) -> Unseen:
        """How many recorded products were not seen, with up to `examples` skus."""
        return Unseen(
            ingest_runs.count_unseen(self._connection),
            ingest_runs.count_snapshot(self._connection),
            tuple(ingest_runs.first_unseen(self._connection, examples)),
        )

    def finished(self, report: Mapping[str, Any]) -> None:
        """Record that the run has finished."""
        if self.id is not None:
            ingest_runs.finish(self._connection, self.id, "finished", report)


@contextmanager
def ingest_run(
    engine: Engine,
    source: str,
    model: Model | None,
    limits: HistoryLimits = DEFAULT_LIMITS,
    *,
    undoes: int | None = None,
) -> Iterator[IngestRun]:
    """Begin a run, of a source or to undo another run; an error in the block records it as failed.

    Before a load, what earlier runs kept beyond the limits is deleted; not before an undo, which
    may need it.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if undoes is None:
            history.trim(connection, limits)
        kind = "ingest" if undoes is None else "undo"
        model_id = None if model is None else model.id
        run_id = ingest_runs.begin(connection, escaped(source), model_id, kind, undoes)
        run = IngestRun(connection, run_id, limits)
        ingest_runs.create_seen_skus(connection)
        with locks.ingest_run(connection, run_id), locks.run_writer(connection, run_id):
            try:
                yield run
            except BaseException as exc:
                with suppress(LookalikeError), engine.begin() as other:
                    reason = (str(exc) or type(exc).__name__).split("\n", 1)[0]
                    ingest_runs.finish(other, run_id, "failed", {"reason": escaped(reason)})
                raise


@contextmanager
def dry_run(engine: Engine) -> Iterator[IngestRun]:
    """A run that is not recorded."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        ingest_runs.create_seen_skus(connection)
        yield IngestRun(connection, None)


def _escaped(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value
