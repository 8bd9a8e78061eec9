"""IngestRun: the record of one ingest, written to the database while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine

from app.db.queries import ingest_runs
from app.db.text import escaped
from app.errors import LookalikeError
from app.types import Model

PRUNED_AT_ONCE = 500


class IngestRun:
    """One run: what it refused, and which skus it has seen, on a connection of its own.

    The skus are kept in the database, so that a source of any size needs no memory here.
    """

    def __init__(self, connection: Connection, run_id: int) -> None:
        self._connection = connection
        self.id = run_id

    def reject(self, rejects: Sequence[Mapping[str, Any]]) -> None:
        """Record refused rows and pictures: mappings with line, sku, image, reason."""
        if rejects:
            ingest_runs.add_rejects(
                self._connection,
                self.id,
                [{name: _escaped(value) for name, value in each.items()} for each in rejects],
            )

    def seen_before(self, lines: Mapping[str, int]) -> dict[str, int]:
        """Note skus (with their lines); returns those seen before and the line that was in."""
        return ingest_runs.seen_before(self._connection, list(lines), list(lines.values()))

    def remember_products(self) -> None:
        """Note the products that are there now, before anything is read that could be pruned."""
        ingest_runs.snapshot_products(self._connection)

    def unseen(self) -> Iterator[list[str]]:
        """Skus that were noted and not seen; delete each list before taking the next."""
        return ingest_runs.unseen_skus(self._connection, PRUNED_AT_ONCE)

    def finished(self, report: Mapping[str, Any]) -> None:
        """Record that the run came to its end."""
        ingest_runs.finish(self._connection, self.id, "finished", report)


@contextmanager
def ingest_run(engine: Engine, source: str, model: Model) -> Iterator[IngestRun]:
    """A run that is recorded as failed if it is left by an error."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run = IngestRun(connection, ingest_runs.begin(connection, escaped(source), model.id))
        ingest_runs.create_seen_skus(connection)
        try:
            yield run
        except BaseException as exc:
            with suppress(LookalikeError), engine.begin() as other:
                reason = (str(exc) or type(exc).__name__).split("\n", 1)[0]
                ingest_runs.finish(other, run.id, "failed", {"reason": escaped(reason)})
            raise


def _escaped(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value
