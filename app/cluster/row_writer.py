"""ClusterWriter: writes the rows of an ingest in tasks on a cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from app.cluster import tasks
from app.cluster.job import Job
from app.cluster.session import Cluster
from ingest.chunk_writer import RunHistory, WrittenRows
from ingest.sources import SourceReject, SourceRow

ROWS = 256
"""Rows of a task."""


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
        return self._cluster.run(tasks.write_rows, self._calls(iter(rows), run))

    def close(self) -> None:
        """Nothing is held."""

    def _calls(
        self, rows: Iterator[SourceRow | SourceReject], run: RunHistory
    ) -> Iterator[tuple[Any, ...]]:
        while block := list(islice(rows, ROWS)):
            yield self._job, run.id, self._folder, self._cluster.slots, run.history_id(), block
