"""Backfill on a cluster: each task embeds the pictures of a range of ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from app.bootstrap import App
from app.cluster import tasks
from app.cluster.attempts import Call, Divided
from app.cluster.job import Job
from app.cluster.session import Cluster
from app.db.queries import models
from app.models.backfill import (
    BackfillProgress,
    BackfillReport,
    EmbeddedPart,
    complete,
    missing_ranges,
)
from app.types import Model, ProgressCallback

PICTURES = 256
"""Pictures of a task: seconds of work, beside which the milliseconds of a task do not count."""

CRASHED = "reading or encoding it ended the process, again and again"


def embed(
    app: App,
    cluster: Cluster,
    job: Job,
    model: Model,
    folders: Sequence[Path],
    progress: BackfillProgress | None = None,
    notify: ProgressCallback = lambda message: None,
) -> BackfillReport:
    """Embed every picture that has no embedding under the model, as `backfill.embed` does.

    `folders` hold the originals on every node. What a lost task or another program has stored is
    not counted as embedded by this one, nor is it left.
    """
    places = [folder.absolute() for folder in folders]
    calls = (
        (job, model, places, cluster.slots, ids, count)
        for ids, count in missing_ranges(app.engine, model, PICTURES)
    )
    parts = cluster.run(tasks.embed_pictures, calls, partial(divided, app.engine))
    return complete(app.engine, model, parts, progress, notify)


def divided(engine: Engine, call: Call) -> Divided[EmbeddedPart]:
    """Two halves of what is left to embed of a task that ends its process; a picture alone counts
    as failed."""
    job, model, places, slots, ids, _ = call
    with engine.connect() as connection:
        missing = models.pictures_without_embedding(connection, model.id, ids, PICTURES)
    if half := len(missing) // 2:
        middle = missing[half][0]
        halves = ((range(ids.start, middle), half), (range(middle, ids.stop), len(missing) - half))
        return Divided([(job, model, places, slots, *each) for each in halves])
    reasons = [f"picture {sha256.hex()[:12]}: {CRASHED}" for _, sha256, _ in missing]
    return Divided(result=EmbeddedPart(0, 0, len(missing), tuple(reasons)))
