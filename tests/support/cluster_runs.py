"""Ingests on a cluster, and what a build has, to compare with those of one machine."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from app.bootstrap import App
from app.cluster import row_writer
from app.cluster.job import Job
from app.cluster.session import Cluster
from app.types import Build
from ingest.load import LoadOptions, load
from ingest.pipeline import IngestReport
from support.two_forms import by_list


def on_cluster(
    app: App, cluster: Cluster, described: Job, source: Path, **options: Any
) -> IngestReport:
    writer = row_writer.ClusterWriter(cluster, described, source.parent)
    return load(
        app.engine, app.catalog, app.encoders, app.limits, source, LoadOptions(**options),
        writer=writer,
    )  # fmt: skip


def vectors_by_list(app: App, build: Build) -> str:
    """A hash of the vectors of a build as they are encoded, by list and id."""
    rows = set().union(*(by_list(app.files.read(file)) for file in build.files))
    return sha256(repr(sorted(rows)).encode()).hexdigest()
