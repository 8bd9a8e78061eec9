"""The life of an index: read one snapshot, check it, build, measure, publish, retire."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, text

from app import ann
from app.ann import AnnIndex, Ids
from app.config import Settings
from app.database import check_schema, snapshot
from app.errors import BuildRefused, BuildRunning, LookalikeError, NoModel
from app.index_files import IndexFiles
from app.store import builds, models, pictures
from app.values import Build, Model, Vectors

LOCK = 7_305_804_002
"""Key of the advisory lock that makes builders take turns."""

KEPT_BUILDS = 2
"""Published builds that stay: the newest, and the one that running searches may still use."""

RECALL_SAMPLE = 400
"""Queries a build is measured with: recall 0.99 is then known to about half a percent."""

UNIT_TOLERANCE = 1e-2
"""How far a stored vector's length may be from 1; rounding to float16 accounts for 1e-3."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a build is made of: the snapshot, ids (n,) and unit vectors (n, dim)."""

    snapshot: str
    ids: Ids
    vectors: Vectors


class Indexer:
    """Builds indexes of the active model's embeddings, one at a time over all hosts."""

    def __init__(self, engine: Engine, files: IndexFiles, settings: Settings) -> None:
        self._engine = engine
        self._files = files
        self._settings = settings

    def rebuild(self) -> Build:
        """Build an index of everything committed by now; returns it, published or rejected.

        Raises BuildRunning while another builder is at work, BuildRefused when the table's content
        cannot be indexed, IndexUnwritable when the file cannot be written, NoModel. After an error
        nothing is published and the build before stays in use.
        """
        self._files.check_writable()
        with self._only_builder(), self._engine.connect() as connection:
            self._files.remove_drafts()
            builds.abandon(connection, "its builder disappeared")
            model = self._model(connection)
            build_id = builds.begin(connection, model.id)
            connection.commit()
            try:
                build = self._build(connection, model, build_id)
            except BaseException as exc:
                self._reject(build_id, exc)
                raise
            if build.state == "published":
                self._retire(connection, model)
            return build

    def _build(self, connection: Connection, model: Model, build_id: int) -> Build:
        began = time.monotonic()
        content = read_content(self._engine, model)
        index, recall, sample = _measured(content, self._settings.recall_goal)
        sha256, size = self._files.write(index)
        good = recall is None or recall >= self._settings.recall_goal
        build = builds.finish(
            connection,
            build_id,
            "published" if good else "rejected",
            reason=None if good else f"recall@10 is below {self._settings.recall_goal}",
            snapshot=content.snapshot,
            kind=index.kind,
            parameters=dict(index.parameters),
            rows=index.rows,
            sha256=sha256,
            size=size,
            recall_at_10=recall,
            recall_sample=sample,
            seconds=round(time.monotonic() - began, 3),
        )
        connection.commit()
        return build

    def _reject(self, build_id: int, exc: BaseException) -> None:
        """Say why in the row; where the database is what failed, the next builder says so."""
        try:
            with self._engine.begin() as connection:
                reason = (str(exc) or type(exc).__name__).split("\n", 1)[0]
                builds.finish(connection, build_id, "rejected", reason=reason)
        except LookalikeError:
            return

    def _retire(self, connection: Connection, model: Model) -> None:
        """Retire, commit, then delete: no published row names a file that is gone."""
        needless = builds.retire_older(connection, model.id, KEPT_BUILDS)
        connection.commit()
        for sha256 in needless:
            self._files.remove(sha256)

    def _model(self, connection: Connection) -> Model:
        check_schema(connection)
        model = models.active(connection)
        if model is None:
            raise NoModel()
        return model

    @contextmanager
    def _only_builder(self) -> Iterator[None]:
        """Hold the builder's lock on a connection of its own for as long as the build takes."""
        with self._engine.connect() as connection:
            free = connection.execute(
                text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}
            ).scalar_one()
            connection.commit()
            if not free:
                raise BuildRunning()
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
                connection.commit()


def read_content(engine: Engine, model: Model) -> Content:
    """All embeddings of a model as one snapshot sees them, checked; vectors made exactly unit.

    Raises BuildRefused on a replica, without the stamp trigger, and for vectors that are not
    finite or not of length 1: an index of them would nominate the wrong rows.
    """
    with snapshot(engine) as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        seen = connection.execute(text("SELECT pg_current_snapshot()::text")).scalar_one()
        _check_primary(connection)
        _check_stamp(connection)
        blocks = list(pictures.stream(connection, model))
    ids, vectors = _joined(blocks, model.dim)
    return Content(seen, ids, _unit(ids, vectors))


def _joined(blocks: list[tuple[Ids, NDArray[np.float16]]], dim: int) -> tuple[Ids, Vectors]:
    """The blocks in one float32 array; each block is let go as soon as it is copied."""
    rows = sum(len(ids) for ids, _ in blocks)
    all_ids, all_vectors = np.empty(rows, np.int64), np.empty((rows, dim), np.float32)
    end = rows
    while blocks:
        ids, vectors = blocks.pop()
        begin = end - len(ids)
        all_ids[begin:end], all_vectors[begin:end] = ids, vectors
        end = begin
    return all_ids, all_vectors


def _unit(ids: Ids, vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    bad = ~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE)  # true for NaN as well
    if bad.any():
        raise BuildRefused(
            f"{int(bad.sum())} embeddings are not finite vectors of length 1, the first of them of "
            f"picture {ids[bad][0]}. Delete those rows of `embedding` and ingest again."
        )
    if len(np.unique(ids)) != len(ids):
        raise BuildRefused("A picture has two embeddings; the primary key is missing.")
    vectors /= lengths[:, np.newaxis]
    return vectors


def _check_primary(connection: Connection) -> None:
    if connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
        raise BuildRefused("This is a replica; build the index on the primary server.")


def _check_stamp(connection: Connection) -> None:
    """The horizon rests on the stamp of every written row, so look whether it is still given.

    It must fire for each row (tgtype 23: row, before, insert and update), always, on every column,
    and after any other trigger that could overwrite it.
    """
    missing = connection.execute(
        text(
            """SELECT part.relid::regclass::text
            FROM pg_partition_tree('embedding') AS part
            LEFT JOIN pg_trigger AS stamp ON stamp.tgrelid = part.relid
                AND stamp.tgfoid = to_regprocedure('stamp_embedding()')
                AND stamp.tgtype = 23 AND stamp.tgenabled = 'A'
                AND stamp.tgqual IS NULL AND stamp.tgattr = ''
            WHERE stamp.oid IS NULL OR EXISTS (
                SELECT FROM pg_trigger AS later
                WHERE later.tgrelid = part.relid AND NOT later.tgisinternal
                    AND later.tgtype & 3 = 3 AND later.tgname > stamp.tgname)"""
        )
    ).scalars()
    if found := list(missing):
        raise BuildRefused(
            f"The trigger that stamps changed rows is missing or off on {', '.join(found)}, so an "
            "index could not tell what changed after it. Enable it: ALTER TABLE embedding ENABLE "
            "ALWAYS TRIGGER embedding_stamp."
        )


def _measured(content: Content, goal: float) -> tuple[AnnIndex, float | None, int]:
    """An index with the cheapest parameters that reach the goal, its recall@10 and the sample."""
    index = ann.build(content.ids, content.vectors)
    queries = _sample_queries(content.vectors)
    k = min(10, len(content.ids))
    if k == 0:
        return index, None, 0
    exact = _exact_ids(content, queries, k)
    index = ann.tuned(index, lambda candidate: _recall(candidate, queries, exact) >= goal)
    return index, _recall(index, queries, exact), len(queries)


def _sample_queries(vectors: Vectors) -> Vectors:
    """Catalogue vectors, each moved a little as another photo of the same thing would be."""
    random = np.random.default_rng(2024)
    chosen = random.permutation(len(vectors))[:RECALL_SAMPLE]
    noise = random.standard_normal((len(chosen), vectors.shape[1]), dtype=np.float32)
    noise *= 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    moved: Vectors = vectors[chosen] + noise
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved


def _exact_ids(content: Content, queries: Vectors, k: int) -> Ids:
    """The ids of the k rows with the greatest inner product, shape (len(queries), k).

    Read in blocks, so that the scores of a million rows never stand in memory at once.
    """
    best_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    best_ids = np.full((len(queries), k), -1, dtype=np.int64)
    for begin in range(0, len(content.ids), 65_536):
        block = slice(begin, begin + 65_536)
        scores = np.hstack([best_scores, queries @ content.vectors[block].T])
        ids = np.hstack([best_ids, np.tile(content.ids[block], (len(queries), 1))])
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        best_scores = np.take_along_axis(scores, top, axis=1)
        best_ids = np.take_along_axis(ids, top, axis=1)
    return best_ids


def _recall(index: AnnIndex, queries: Vectors, exact: Ids) -> float:
    """The share of the exact nearest that the index found too, 0 to 1."""
    _, found = index.search(queries, exact.shape[1])
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
    return hits / exact.size
