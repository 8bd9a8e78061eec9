"""The life of an index: read one snapshot, check it, build, measure, publish, retire."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, text

from app.config import Settings
from app.db.engine import check_schema
from app.db.queries import index_builds, models, query_samples
from app.errors import BuildRefused, BuildRunning, LookalikeError, ModelNotKept, NoModel
from app.index import faiss_index, recall
from app.index.embedding_reader import EmbeddingSnapshot, check_primary, read_content
from app.index.faiss_index import AnnIndex
from app.index.file_store import IndexFiles
from app.index.recall import RecallBenchmark
from app.types import Build, Model, Vectors

LOCK = 7_305_804_002
"""Key of the advisory lock that makes builders take turns."""

KEPT_BUILDS = 2
"""Published builds that stay: the newest, and the one that running searches may still use."""


StageCallback = Callable[[str], None]
"""Is told what a build does from now on, in words for a person."""


class Indexer:
    """Builds indexes of the active model's embeddings, one at a time over all hosts."""

    def __init__(self, engine: Engine, files: IndexFiles, settings: Settings) -> None:
        self._engine = engine
        self._files = files
        self._settings = settings

    def rebuild(
        self, name: str | None = None, announce: StageCallback = lambda step: None
    ) -> Build:
        """Build an index of everything committed by now; returns it, published or rejected.

        Of the active model, or of the one called `name`. `announce` is told each step when it
        begins.

        Raises BuildRunning while another builder is at work, BuildRefused when the table's content
        cannot be indexed, IndexUnwritable when the file cannot be written, NoModel, UnknownModel,
        ModelNotKept for a model that is being dropped.
        After an error nothing is published and the build before stays in use.
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
                build = self._build(connection, model, build_id, announce)
            except BaseException as exc:
                self._reject(build_id, exc)
                raise
            if build.state == "published":
                self._retire(connection, model)
            return build

    def _build(
        self, connection: Connection, model: Model, build_id: int, announce: StageCallback
    ) -> Build:
        began = time.monotonic()
        asked = query_samples.read(connection, model)
        connection.commit()  # not to stay in a transaction while the index is trained
        goal = self._settings.recall_goal
        announce("Reading all embeddings")
        content = read_content(self._engine, model)
        announce(f"Building an index of {len(content.ids):,} pictures and measuring its recall")
        measured = _measured(content, asked, goal)
        figures: dict[str, Any] = {
            "snapshot": content.snapshot,
            "kind": measured.index.kind,
            "parameters": dict(measured.index.parameters),
            "rows": measured.index.rows,
            "recall_at_10": measured.recall_at_10,
            "recall_at_50": measured.recall_at_50,
            "recall_filtered": measured.recall_filtered,
            "recall_sample": measured.sample,
        }
        if (reason := measured.short_of(goal)) is not None:
            figures["reason"] = reason
            return self._finish(connection, build_id, "rejected", began, figures)
        announce("Writing the index file")
        return self._publish(connection, build_id, began, measured.index, figures)

    def _publish(
        self,
        connection: Connection,
        build_id: int,
        began: float,
        index: AnnIndex,
        figures: dict[str, Any],
    ) -> Build:
        """First the whole file, then the row that makes it visible; without the row, no file."""
        sha256, size = self._files.write(index, partial(self._name_file, build_id))
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
    ) -> Build:
        seconds = round(time.monotonic() - began, 3)
        build = index_builds.finish(connection, build_id, state, seconds=seconds, **figures)
        connection.commit()
        if build is None:
            raise BuildRefused(
                f"Build {build_id} was given up: another builder took its place, "
                "or its model was dropped."
            )
        return build

    def _name_file(self, build_id: int, sha256: str) -> None:
        """Name the file in the row before it is there, for whoever must clear it away."""
        with self._engine.begin() as connection:
            index_builds.record_file(connection, build_id, sha256)

    def _needed(self, sha256: str) -> bool:
        """Whether a build needs this file; yes where the database cannot be asked."""
        try:
            with self._engine.connect() as connection:
                return index_builds.is_published(connection, sha256)
        except LookalikeError:
            return True

    def _reject(self, build_id: int, exc: BaseException) -> None:
        """Say why in the row; where the database is what failed, the next builder says so."""
        try:
            with self._engine.begin() as connection:
                reason = (str(exc) or type(exc).__name__).split("\n", 1)[0]
                index_builds.finish(connection, build_id, "rejected", reason=reason)
        except LookalikeError:
            return

    def _retire(self, connection: Connection, model: Model) -> None:
        """Retire, commit, then delete: no published row names a file that is gone."""
        needless = index_builds.retire_older(connection, model.id, KEPT_BUILDS)
        index_builds.drop_retired_files(connection)
        connection.commit()
        for sha256 in needless:
            self._files.remove(sha256)

    def _model(self, connection: Connection, name: str | None) -> Model:
        check_schema(connection)
        check_primary(connection)
        model = models.active(connection) if name is None else models.resolve(connection, name)
        if model is None:
            raise NoModel()
        if models.by_id(connection, model.id) is None:
            raise ModelNotKept(f"{model.name} is not kept up to date; see `lookalike model list`.")
        return model


@contextmanager
def only_builder(engine: Engine) -> Iterator[None]:
    """Hold the builder's lock, on a connection of its own. Raises BuildRunning."""
    with engine.connect() as connection:
        free = connection.execute(
            text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}
        ).scalar_one()
        connection.commit()
        if not free:
            raise BuildRunning()
        try:
            yield
        finally:
            # Of a connection that is gone the lock is gone too; the first error is the one
            # that counts.
            with suppress(LookalikeError):
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
                connection.commit()


@dataclass(frozen=True, slots=True)
class _Measured:
    """An index with the cheapest parameters that reach the goal, and how good it is."""

    index: AnnIndex
    recall_at_10: float | None = None
    recall_at_50: float | None = None
    recall_filtered: float | None = None
    sample: int = 0

    def short_of(self, goal: float) -> str | None:
        """What falls short of the goal; None if nothing does."""
        measured = {"recall@10": self.recall_at_10, "filtered recall@10": self.recall_filtered}
        low = [
            f"{name} is {it:.3f}" for name, it in measured.items() if it is not None and it < goal
        ]
        return f"{', '.join(low)}, below {goal}" if low else None


def _measured(content: EmbeddingSnapshot, real: Vectors, goal: float) -> _Measured:
    index = faiss_index.build(content.ids, content.vectors)
    if not len(content.ids):
        return _Measured(index)
    yardstick = RecallBenchmark(content, faiss_index.DEPTHS, real=real)
    index = recall.tuned(index, yardstick, goal)
    return _Measured(
        index,
        yardstick.recall(index, 10),
        yardstick.recall(index, 50),
        yardstick.filtered_recall(index),
        len(yardstick.queries),
    )
