"""IngestRun: the record of one ingest, written to the database while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from app.db.queries import ingest_runs
from app.db.text import escaped
from app.errors import LookalikeError
from app.types import Model

PRUNE_BATCH = 500
"""Skus that `unseen` yields at a time."""


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

    def __init__(self, connection: Connection, run_id: int | None) -> None:
        self._connection = connection
        self.id = run_id

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
def ingest_run(engine: Engine, source: str, model: Model) -> Iterator[IngestRun]:
    """Begin a run; an error in the block records it as failed."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run_id = ingest_runs.begin(connection, escaped(source), model.id)
        run = IngestRun(connection, run_id)
        ingest_runs.create_seen_skus(connection)
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
