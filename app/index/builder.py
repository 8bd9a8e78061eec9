"""The Indexer: reads all embeddings, builds an index, measures, publishes and retires it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine

from app.config import Settings
from app.db import locks
from app.db.engine import check_schema
from app.db.locks import LockKey
from app.db.queries import index_builds, models, query_samples
from app.errors import BuildRefused, BuildRunning, LookalikeError, ModelNotMaintained
from app.index import faiss_index, kmeans, recall
from app.index.embedding_reader import (
    Embeddings,
    StoredEmbeddings,
    check_primary,
    collected,
    open_embeddings,
    sample_rows,
)
from app.index.faiss_index import AnnIndex, Code
from app.index.file_store import IndexFiles
from app.index.filling import Fill, fill_here
from app.index.nominees import TrainedIndex
from app.index.part_builder import PartBuilder, listed, sha256_of
from app.index.recall import RecallBenchmark
from app.types import IN_PARTS, Build, BuildPart, Model, ProgressCallback, Vectors

RETAINED_BUILDS = 2
"""Published builds that are kept: the newest, and the one that running searches may still use."""

SCREENED_ROWS = 1_000_000
"""From so many rows on a code is tried with the rows nearest to the queries, about 100,000, before
all rows are encoded."""


class Indexer:
    """Builds indexes of a model's embeddings, one at a time across all hosts."""

    def __init__(self, engine: Engine, files: IndexFiles, settings: Settings) -> None:
        self._engine = engine
        self._files = files
        self._settings = settings

    def rebuild(
        self,
        name: str | None = None,
        notify: ProgressCallback = lambda message: None,
        fill: Fill = fill_here,
    ) -> Build:
        """Build an index of all committed embeddings of the active model, or of the model `name`.

        Returns the build, in state "published" or "rejected". `notify` gets a message when a stage
        begins. `fill` adds the vectors to inverted lists; a flat index is built here. An index of
        more than `Settings.index_part_rows` rows is built in parts.

        Raises BuildRunning while another process builds, BuildRefused when the embeddings cannot
        be indexed, IndexUnwritable when the file cannot be written, NoModel, UnknownModel, and
        ModelNotMaintained for a model that is being dropped. After an error nothing is published,
        and the previous build stays in use.
        """
        self._files.check_writable()
        with only_builder(self._engine), self._engine.connect() as connection:
            model = self._model(connection, name)
            self._files.remove_drafts()
            index_builds.reject_unfinished(connection, "its builder disappeared")
            for sha256 in index_builds.unneeded_files(connection):
                self._files.remove(sha256)
            build_id = index_builds.begin(connection, model.id)
            connection.commit()
            try:
                build = self._build(connection, model, build_id, notify, fill)
            except BaseException as exc:
                self._reject(build_id, exc)
                raise
            if build.state == "published":
                self._retire(connection, model)
            return build

    def latest(self, limit: int) -> list[Build]:
        """The newest builds in any state, newest first. Raises SchemaMismatch."""
        with self._engine.connect() as connection:
            check_schema(connection)
            return index_builds.latest(connection, limit)

    def _build(
        self,
        connection: Connection,
        model: Model,
        build_id: int,
        notify: ProgressCallback,
        fill: Fill,
    ) -> Build:
        began = time.monotonic()
        user_queries = query_samples.read(connection, model)
        connection.commit()  # no open transaction while the index is trained
        goal = self._settings.recall_goal
        notify("Reading all embeddings")
        with open_embeddings(self._engine, model) as embeddings:
            notify(f"Building an index of {embeddings.rows:,} pictures and measuring its recall")
            if not self._in_parts(embeddings.rows):
                measured = _build_and_measure(
                    embeddings, user_queries, goal, lambda index: fill(index, embeddings)
                )
                figures = measured.figures(embeddings)
                if (reason := measured.shortfall(goal)) is not None:
                    return self._finish(connection, build_id, "rejected", began, figures, reason)
            else:
                builder = PartBuilder(
                    self._files, embeddings, self._settings.index_part_rows, fill.fill_part,
                    partial(self._record_part, build_id), self._needed, notify,
                )  # fmt: skip
                return self._build_parts(
                    connection, build_id, began, builder, embeddings, user_queries
                )
        notify("Writing the index file")
        return self._publish(connection, build_id, began, measured.index, figures)

    def _in_parts(self, rows: int) -> bool:
        part_rows = self._settings.index_part_rows
        return bool(part_rows) and rows > max(part_rows, faiss_index.FLAT_ROWS)

    def _build_parts(
        self,
        connection: Connection,
        build_id: int,
        began: float,
        builder: PartBuilder,
        source: StoredEmbeddings,
        user_queries: Vectors,
    ) -> Build:
        """Build, measure and publish an index in parts; if it is not published, delete them."""
        published = False
        try:
            goal = self._settings.recall_goal
            measured = _smallest_index(source, user_queries, goal, builder.build)
            figures = measured.figures(source)
            reason = measured.shortfall(goal)
            if reason is None:
                figures |= {
                    "kind": measured.index.kind + IN_PARTS,
                    "sha256": sha256_of(builder.parts),
                    "size": sum(part.size for part in builder.parts),
                }
                if self._settings.index_in_database:
                    for part in builder.parts:
                        file = self._files.path(part.sha256)
                        index_builds.save_file(connection, build_id, file, part.number)
            state = "published" if reason is None else "rejected"
            build = self._finish(connection, build_id, state, began, figures, reason)
            published = reason is None
            return build
        finally:
            if not published:
                builder.remove()

    def _publish(
        self,
        connection: Connection,
        build_id: int,
        began: float,
        index: AnnIndex,
        figures: dict[str, Any],
    ) -> Build:
        """Write the file, then the row that makes it visible; if that fails, delete the file."""
        sha256, size = self._files.write(index, partial(self._record_file, build_id))
        try:
            figures |= {"sha256": sha256, "size": size}
            if self._settings.index_in_database:
                index_builds.save_file(connection, build_id, self._files.path(sha256))
            return self._finish(connection, build_id, "published", began, figures)
        except BaseException:
            if not self._needed(sha256):
                self._files.remove(sha256)
            raise

    def _finish(
        self,
        connection: Connection,
        build_id: int,
        state: str,
        began: float,
        figures: dict[str, Any],
        reason: str | None = None,
    ) -> Build:
        seconds = round(time.monotonic() - began, 3)
        if reason is not None:
            figures = figures | {"reason": reason}
        build = index_builds.finish(connection, build_id, state, seconds=seconds, **figures)
        connection.commit()
        if build is None:
            raise BuildRefused(
                f"Build {build_id} was given up: another builder took its place, "
                "or its model was dropped."
            )
        return build

    def _record_file(self, build_id: int, sha256: str) -> None:
        """Record the file's name before it exists, so that the next builder can delete it if this
        process is killed."""
        with self._engine.begin() as connection:
            index_builds.record_file(connection, build_id, sha256)

    def _record_part(self, build_id: int, part: BuildPart) -> None:
        """The same of a part."""
        with self._engine.begin() as connection:
            index_builds.record_part(connection, build_id, listed(part))

    def _needed(self, sha256: str) -> bool:
        """Whether a build needs this file; True if the database cannot be queried."""
        try:
            with self._engine.connect() as connection:
                return index_builds.is_published(connection, sha256)
        except LookalikeError:
            return True

    def _reject(self, build_id: int, exc: BaseException) -> None:
        """Record the error in the build's row. If the database cannot be reached, the next builder
        rejects the build (`reject_unfinished`)."""
        try:
            with self._engine.begin() as connection:
                reason = (str(exc) or type(exc).__name__).split("\n", 1)[0]
                index_builds.finish(connection, build_id, "rejected", reason=reason)
        except LookalikeError:
            return

    def _retire(self, connection: Connection, model: Model) -> None:
        """Retire older builds, commit, then delete their files, so that no published row names a
        deleted file."""
        unused_files = index_builds.retire_older(connection, model.id, RETAINED_BUILDS)
        index_builds.drop_retired_files(connection)
        connection.commit()
        for sha256 in unused_files:
            self._files.remove(sha256)

    def _model(self, connection: Connection, name: str | None) -> Model:
        check_schema(connection)
        check_primary(connection)
        model = (
            models.require_active(connection) if name is None else models.resolve(connection, name)
        )
        if models.maintained_by_id(connection, model.id) is None:
            raise ModelNotMaintained(
                f"{model.name} is not kept up to date; see `lookalike model list`."
            )
        return model


@contextmanager
def only_builder(engine: Engine) -> Iterator[None]:
    """Hold the builder's lock, on a connection of its own. Raises BuildRunning."""
    with locks.session(engine, LockKey.INDEX_BUILD) as acquired:
        if not acquired:
            raise BuildRunning()
        yield


_Built = TypeVar("_Built", bound=TrainedIndex)


@dataclass(frozen=True, slots=True)
class _MeasuredIndex(Generic[_Built]):
    """An index with the cheapest parameters that reach the recall goal, and its recall."""

    index: _Built
    recall_at_10: float | None = None
    recall_at_50: float | None = None
    recall_filtered: float | None = None
    sample: int = 0

    def figures(self, source: Embeddings) -> dict[str, Any]:
        """The columns of its build, without those of its file."""
        return {
            "snapshot": source.snapshot,
            "kind": self.index.kind,
            "parameters": dict(self.index.parameters),
            "rows": self.index.rows,
            "recall_at_10": self.recall_at_10,
            "recall_at_50": self.recall_at_50,
            "recall_filtered": self.recall_filtered,
            "recall_sample": self.sample,
        }

    def shortfall(self, goal: float) -> str | None:
        """Why the index misses the recall goal; None if it reaches it."""
        low = []
        if self.recall_at_10 is not None and self.recall_at_10 < goal:
            low.append(f"recall@10 is {self.recall_at_10:.3f}, below {goal}")
        if self.recall_filtered is not None and self.recall_filtered < goal:
            low.append(f"filtered recall@10 is {self.recall_filtered:.3f}, below {goal}")
        return "; ".join(low) or None


def _build_and_measure(
    source: Embeddings,
    real: Vectors,
    goal: float,
    fill: Callable[[AnnIndex], None] | None = None,
) -> _MeasuredIndex[AnnIndex]:
    """An index in one file. `fill` adds all rows of the source to inverted lists; None: in this
    process."""
    if source.rows > faiss_index.FLAT_ROWS:
        fill = fill or partial(fill_here, source=source)

        def filled(centroids: Vectors, code: Code) -> AnnIndex:
            index = faiss_index.inverted_lists(centroids, code)
            fill(index)
            return index

        return _smallest_index(source, real, goal, filled)
    source = collected(source)
    index = faiss_index.build(source.ids, source.vectors)
    if not source.rows:
        return _MeasuredIndex(index)
    return _measured(
        index,
        RecallBenchmark(source, faiss_index.DEPTHS, pictures=source.vectors, real=real),
    )


def _measured(index: _Built, benchmark: RecallBenchmark) -> _MeasuredIndex[_Built]:
    return _MeasuredIndex(
        index,
        benchmark.recall(index, 10),
        benchmark.recall(index, 50),
        benchmark.filtered_recall(index),
        len(benchmark.queries),
    )


def _fails(
    code: Code, centroids: Vectors, benchmark: RecallBenchmark, goal: float, max_pool: int
) -> bool:
    """Whether even among the rows nearest to the queries the code needs too many nominees: then it
    does among all rows, as more of them compete."""
    index = faiss_index.inverted_lists(centroids, code)
    for ids, vectors in benchmark.nearest_rows():
        faiss_index.add(index, ids, vectors)
    pool = recall.smallest_pool(index, benchmark, faiss_index.DEPTHS[0], goal, max_pool)
    return pool > max_pool


def _smallest_index(
    source: Embeddings, real: Vectors, goal: float, build: Callable[[Vectors, Code], _Built]
) -> _MeasuredIndex[_Built]:
    """The index in the smallest code that reaches the recall goal, with few nominees and under
    filters too, tuned; that in the largest code if none does. `build` makes it from its centroids
    and a code."""
    lists = faiss_index.list_count(source.rows)
    pictures = sample_rows(source, kmeans.sample_size(lists, source.dim))
    centroids = kmeans.train(pictures, lists)
    benchmark = RecallBenchmark(source, faiss_index.DEPTHS, pictures=pictures, real=real)
    del pictures
    codes = faiss_index.codes(source.rows)
    for code in codes:
        max_pool = None if code == codes[-1] else faiss_index.max_pool(source.rows)
        if (
            max_pool is not None
            and source.rows >= SCREENED_ROWS
            and _fails(code, centroids, benchmark, goal, max_pool)
        ):
            continue
        index = build(centroids, code)
        tuned = recall.tune(index, benchmark, goal, max_pool)
        if tuned is None:
            continue
        measured = _measured(tuned, benchmark)
        if measured.shortfall(goal) is None:
            break
    return measured
