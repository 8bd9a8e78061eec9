"""Fills an index in tasks on a cluster, each with the vectors of a range of table pages, or of ids
for an index in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

from app.cluster import tasks
from app.cluster.job import Job
from app.cluster.session import Cluster
from app.errors import BuildRefused
from app.index import faiss_index, faiss_parts
from app.index.embedding_reader import StoredEmbeddings
from app.index.faiss_index import AnnIndex
from app.index.faiss_parts import PartBytes
from app.types import ProgressCallback

BLOCKS = 32
"""Blocks of pages of a task: 64 MB of the table, some 50,000 vectors of 512 dimensions."""

ID_BLOCKS = 24
"""Blocks of ids of a task that fills a part of an index: as many vectors."""


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
        step = BLOCKS * pages.step
        ranges = (
            range(begin, min(begin + step, pages.stop), pages.step)
            for begin in range(0, pages.stop, step)
        )
        self._fill(index, source, exported, tasks.encode_pages, ranges)
        if index.rows != source.rows:
            raise BuildRefused(
                f"{source.rows} embeddings were counted, and tasks read {index.rows}; do all nodes "
                "reach the same server?"
            )

    def fill_part(self, index: AnnIndex, source: StoredEmbeddings, bounds: Sequence[int]) -> None:
        """Add the embeddings in ranges of ids, from each bound to before the next one."""
        exported, _ = source.export()
        ranges = (
            bounds[begin : begin + ID_BLOCKS + 1] for begin in range(0, len(bounds) - 1, ID_BLOCKS)
        )
        self._fill(index, source, exported, tasks.encode_ids, ranges)

    def _fill(
        self, index: AnnIndex, source: StoredEmbeddings, exported: str,
        task: Callable[..., PartBytes], ranges: Iterable[Sequence[int]],
    ) -> None:  # fmt: skip
        centroids = self._cluster.share(index.centroids())
        code = faiss_index.code_of(index)
        calls = ((self._job, source.model, exported, centroids, code, each) for each in ranges)
        with closing(self._cluster.run(task, calls)) as parts:
            for data in parts:
                faiss_parts.merge(index, data)
                self._notify(f"{index.rows:,} of {source.rows:,} vectors encoded")
