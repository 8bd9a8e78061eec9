"""Backfill on a cluster: each task embeds the pictures of a range of ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.bootstrap import App
from app.cluster import tasks
from app.cluster.job import Job
from app.cluster.session import Cluster
from app.models.backfill import BackfillProgress, BackfillReport, complete, missing_ranges
from app.types import Model, ProgressCallback

PICTURES = 256
"""Pictures of a task: seconds of work, beside which the milliseconds of a task do not count."""


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
    parts = cluster.run(tasks.embed_pictures, calls)
    return complete(app.engine, model, parts, progress, notify)
