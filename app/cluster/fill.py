"""Fills an index in tasks on a cluster, each with the vectors of a range of table pages."""

from __future__ import annotations

from contextlib import closing

from app.cluster import tasks
from app.cluster.job import Job
from app.cluster.session import Cluster
from app.errors import BuildRefused
from app.index import faiss_index, faiss_parts
from app.index.embedding_reader import StoredEmbeddings
from app.index.faiss_index import AnnIndex
from app.types import ProgressCallback

BLOCKS = 32
"""Blocks of pages of a task: 64 MB of the table, some 50,000 vectors of 512 dimensions."""


class ClusterFill:
    """Assigns and encodes vectors on a cluster, and merges them into the index here.

    All tasks read the snapshot of the build, which its reader holds open. The index has the rows
    that filling it here gives, in lists of another order where tasks end in another order.
    """

    def __init__(self, cluster: Cluster, job: Job, notify: ProgressCallback) -> None:
        self._cluster = cluster
        self._job = job
        self._notify = notify

    def __call__(self, index: AnnIndex, source: StoredEmbeddings) -> None:
        """Add all embeddings of the snapshot. Raises BuildRefused if another number was read."""
        exported, pages = source.export()
        centroids = self._cluster.share(index.centroids())
        step = BLOCKS * pages.step
        calls = (
            (self._job, source.model, exported, centroids, faiss_index.code_of(index), part)
            for part in (
                range(begin, min(begin + step, pages.stop), pages.step)
                for begin in range(0, pages.stop, step)
            )
        )
        with closing(self._cluster.run(tasks.encode_pages, calls)) as parts:
            for data in parts:
                faiss_parts.merge(index, data)
                self._notify(f"{index.rows:,} of {source.rows:,} vectors encoded")
        if index.rows != source.rows:
            raise BuildRefused(
                f"{source.rows} embeddings were counted, and tasks read {index.rows}; do all nodes "
                "reach the same server?"
            )
