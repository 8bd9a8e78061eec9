"""PartBuilder: builds an index in parts, one after the other, and searches them to measure them."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BuildRefused
from app.index import faiss_index, kmeans, memory
from app.index.embedding_reader import BLOCK_ROWS, StoredEmbeddings
from app.index.faiss_index import AnnIndex, Code
from app.index.file_store import IndexFiles
from app.index.id_selectors import ExcludedIds, Ids, IdSelector
from app.index.nominees import TrainedIndex
from app.index.parted_index import PartAnswer, PartedIndex, PartSearcher
from app.types import IN_PARTS, PARTS, Build, BuildPart, ProgressCallback, Vectors
from app.vectors import to_float32

KEPT_BYTES = 1 << 30
"""Parts stay in memory while they are measured up to this size together; beyond, a part that was
searched longest ago is read again, so that a builder needs memory for one part and this."""

MAX_PARTS = 1000

FillPart = Callable[[AnnIndex, StoredEmbeddings, Sequence[int]], None]
"""Adds the embeddings of a snapshot in ranges of ids, given by their bounds, to an empty index."""


def sha256_of(parts: Sequence[BuildPart]) -> str:
    """The sha256 of a build in parts: that of those of its files, one a line."""
    return hashlib.sha256("\n".join(part.sha256 for part in parts).encode()).hexdigest()


class DraftParts(PartedIndex, TrainedIndex):
    """The parts of a build that is not published yet."""

    __slots__ = ("_centroids", "_source")

    def __init__(
        self, kind: str, parameters: dict[str, Any], parts: Sequence[BuildPart],
        searcher: PartSearcher, source: StoredEmbeddings, centroids: Vectors,
    ) -> None:  # fmt: skip
        super().__init__(kind, source.dim, parameters, parts, searcher)
        self._source, self._centroids = source, centroids

    def with_parameters(self, parameters: Any) -> DraftParts:
        return DraftParts(
            self.kind, parameters, self.parts, self.searcher, self._source, self._centroids
        )

    def centroids(self) -> Vectors:
        return self._centroids

    def lists_of(self, ids: Ids) -> NDArray[np.int64]:
        """By their vectors, which takes less than looking them up in all parts."""
        wanted, inverse = np.unique(ids, return_inverse=True)
        found = [
            kmeans.assign(to_float32(self._source.vectors_of(block)), self._centroids)
            for block in np.array_split(wanted, math.ceil(len(wanted) / BLOCK_ROWS) or 1)
        ]
        return np.concatenate(found).astype(np.int64)[inverse.reshape(ids.shape)]


class PartFiles:
    """Searches the files of parts one after the other, few of them in memory."""

    def __init__(self, files: IndexFiles, builds: Sequence[Build]) -> None:
        self._files = files
        self._builds = builds
        self._open: OrderedDict[int, AnnIndex] = OrderedDict()

    def search_parts(
        self, queries: Vectors, k: int, nprobe: int,
        selector: IdSelector | None, excluded: ExcludedIds | None,
    ) -> list[PartAnswer | None]:  # fmt: skip
        """What each part finds."""
        return [
            index.search_lists(queries, min(k, index.rows), nprobe, selector, excluded)
            for index in self._indexes()
        ]

    def _indexes(self) -> Iterator[AnnIndex]:
        for number, build in enumerate(self._builds):
            if number not in self._open:
                sizes = [self._builds[each].size for each in self._open]
                while self._open and sum(sizes) + build.size > KEPT_BYTES:
                    self._open.popitem(last=False)
                    sizes.pop(0)
                    memory.give_back()
                self._open[number] = self._files.read(build)
            yield self._open[number]


class PartBuilder:
    """Builds parts of up to so many `rows` each, whose files are in the index folder.

    `announce` is called with each part before its file gets its name. Files that are `needed`, by
    their sha256, are not deleted: a published build of the same rows has the same ones.
    """

    def __init__(
        self,
        files: IndexFiles,
        source: StoredEmbeddings,
        rows: int,
        fill: FillPart,
        announce: Callable[[BuildPart], None],
        needed: Callable[[str], bool],
        notify: ProgressCallback,
    ) -> None:
        self._files = files
        self._source = source
        self._fill = fill
        self._announce = announce
        self._needed = needed
        self._notify = notify
        self._groups = _groups(source, rows)
        self._parts: list[BuildPart] = []

    @property
    def parts(self) -> Sequence[BuildPart]:
        """The parts that were built last."""
        return self._parts

    def build(self, centroids: Vectors, code: Code) -> DraftParts:
        """The parts in a code, in place of those in another one. Raises BuildRefused if another
        number of rows was read than counted, IndexUnwritable."""
        self.remove()
        empty = faiss_index.inverted_lists(centroids, code)
        for number, bounds in enumerate(self._groups):
            self._notify(f"Building part {number + 1} of {len(self._groups)}")
            index = faiss_index.inverted_lists(centroids, code)
            self._fill(index, self._source, bounds)
            self._write(number, index, bounds)
            del index
            memory.give_back()
        rows = sum(part.rows for part in self._parts)
        if rows != self._source.rows:
            raise BuildRefused(
                f"{self._source.rows} embeddings were counted, and {rows} were read for the parts; "
                "do all nodes reach the same server?"
            )
        parameters = {
            **empty.parameters,
            "dim": self._source.dim,
            PARTS: [listed(part) for part in self._parts],
        }
        searcher = PartFiles(self._files, _draft(empty.kind, parameters).files)
        return DraftParts(empty.kind, parameters, self._parts, searcher, self._source, centroids)

    def remove(self) -> None:
        """Delete the files of the parts, except those that are needed."""
        for part in self._parts:
            if not self._needed(part.sha256):
                self._files.remove(part.sha256)
        self._parts = []

    def _write(self, number: int, index: AnnIndex, bounds: Sequence[int]) -> None:
        part = BuildPart(number, "", 0, index.rows, bounds[0], bounds[-1] - 1)
        sha256, size = self._files.write(
            index, lambda sha256: self._announce(replace(part, sha256=sha256))
        )
        self._parts.append(replace(part, sha256=sha256, size=size))


def listed(part: BuildPart) -> dict[str, Any]:
    """A part as the parameters of its build list it."""
    fields = asdict(part)
    del fields["number"]
    return fields


def _draft(kind: str, parameters: dict[str, Any]) -> Build:
    """A build of which only the files are read."""
    return Build(
        0, 0, "", "", kind + IN_PARTS, parameters, 0, "", 0, None, None, None, None, 0.0,
        "building", None, None,
    )  # fmt: skip


def _groups(source: StoredEmbeddings, rows: int) -> list[list[int]]:
    """The bounds of the ids of each part, in blocks: as many parts as needed, about equally
    large."""
    parts = min(math.ceil(source.rows / rows), MAX_PARTS)
    blocks = math.ceil(math.ceil(source.rows / parts) / BLOCK_ROWS)
    step = math.ceil(source.rows / (parts * blocks))
    bounds = source.id_bounds(step)
    return [bounds[begin : begin + blocks + 1] for begin in range(0, len(bounds) - 1, blocks)]
