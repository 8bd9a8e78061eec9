"""ClusterWriter: writes the rows of an ingest in tasks on a cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from app.cluster import tasks
from app.cluster.attempts import Call, Divided
from app.cluster.job import Job
from app.cluster.session import Cluster
from ingest.chunk_writer import RowCounts, RunHistory, WrittenRows
from ingest.sources import SourceReject, SourceRow

ROWS = 256
"""Rows of a task."""

CRASHED = "reading it or its pictures ended the process, again and again"


class ClusterWriter:
    """Writes rows as `ChunkWriter` does, many tasks at a time; the outcomes come in any order.

    `folder` holds the pictures that are named by path, on every node.
    """

    def __init__(self, cluster: Cluster, job: Job, folder: Path | None) -> None:
        self._cluster = cluster
        self._job = job
        self._folder = folder and folder.absolute()

    def write(
        self, rows: Iterable[SourceRow | SourceReject], run: RunHistory
    ) -> Generator[WrittenRows]:
        """Write the rows; yields the outcome of each task.

        Rows that a lost task had written count as unchanged when they are written again.
        """
        return self._cluster.run(tasks.write_rows, self._calls(iter(rows), run), divided)

    def close(self) -> None:
        """Nothing is held."""

    def _calls(
        self, rows: Iterator[SourceRow | SourceReject], run: RunHistory
    ) -> Iterator[tuple[Any, ...]]:
        while block := list(islice(rows, ROWS)):
            yield self._job, run.id, self._folder, self._cluster.slots, run.history_id(), block


def divided(call: Call) -> Divided[WrittenRows]:
    """Two halves of the rows of a task that ends its process; a row alone is refused."""
    *rest, rows = call
    if half := len(rows) // 2:
        return Divided([(*rest, rows[:half]), (*rest, rows[half:])])
    [row] = rows
    if isinstance(row, SourceReject):
        counts, sku = RowCounts(read=1, rejected=1), row.sku
    else:
        counts = RowCounts(read=1, rejected=1, images_rejected=len(row.images))
        sku = row.product.sku
    return Divided(result=WrittenRows(counts, [SourceReject(row.line, sku, CRASHED)]))
