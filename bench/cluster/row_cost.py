"""What a product with a picture takes of PostgreSQL: inputs of the simulation.

    python -m bench.cluster.row_cost [--rows 20000]

Bytes of the tables with their indexes, bytes of the write-ahead log, processor time of the server,
and that of a backup and a restore of all of it, in which the client and the server are counted.
Thumbnails are random bytes of the mean size of those of photos.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from sqlalchemy import text

from app.bootstrap import App
from app.db.embedded import server
from bench.data.catalogue import catalogue
from bench.data.products_as_copy import ProductGenerator
from bench.harness.processes import postgres_cpu_s, run_lookalike
from bench.harness.side_by_side import BenchmarkReport

IN_A_TRANSACTION = 256
SIZES = """SELECT
    pg_total_relation_size('product') + pg_total_relation_size('product_picture') AS product,
    pg_total_relation_size('picture') AS picture,
    pg_relation_size('picture') AS picture_row,
    (SELECT sum(pg_relation_size(inhrelid)) FROM pg_inherits
        WHERE inhparent = 'embedding'::regclass) AS embedding,
    (SELECT sum(pg_indexes_size(inhrelid)) FROM pg_inherits
        WHERE inhparent = 'embedding'::regclass) AS embedding_indexes"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    report = BenchmarkReport("cluster_row_cost", f"A product with a picture, of {rows:,}")
    with catalogue(10, own=True) as app:
        write(app, rows, report)
        save(app, rows, report)
    report.write()


def write(app: App, rows: int, report: BenchmarkReport) -> None:
    """Bytes and processor time of a product, written by the service in transactions."""
    generator, model = ProductGenerator.shared(), app.catalog.model()
    batches = [generator.batch(IN_A_TRANSACTION) for _ in range(rows // IN_A_TRANSACTION)]
    written = len(batches) * IN_A_TRANSACTION
    before, log_before, cpu_before = (
        sizes(app),
        log_position(app),
        postgres_cpu_s(app.settings.home),
    )
    for batch in batches:
        app.catalog.write(batch, model)
    log, cpu_s = log_position(app) - log_before, postgres_cpu_s(app.settings.home) - cpu_before
    after = sizes(app)
    report.row(what="write-ahead log, bytes", a_product=log / written)
    report.row(what="processor time of PostgreSQL, ms", a_product=1000 * cpu_s / written)
    for name in after:
        report.row(
            what=f"{name.replace('_', ' ')}, bytes",
            a_product=(after[name] - before[name]) / written,
        )


def save(app: App, rows: int, report: BenchmarkReport) -> None:
    """Processor time of a backup and of a restore into an empty database."""
    home = {"LOOKALIKE_HOME": str(app.settings.home), "LOOKALIKE_MODEL": "embedded"}
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as folder:
        backup = str(Path(folder, "backup"))
        began = used(app)
        run_lookalike("backup", backup, **home)
        size = sum(file.stat().st_size for file in Path(backup).rglob("*") if file.is_file())
        report.row(what="backup, bytes", a_product=size / rows)
        report.row(what="backup, ms", a_product=1000 * (used(app) - began) / rows)
        began = used(app)
        with app.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                text("CREATE DATABASE restored TEMPLATE template0")
            )
        url = server.url(app.settings.home, "restored")
        run_lookalike("restore", backup, **home, LOOKALIKE_DATABASE_URL=url)
        report.row(what="restore, ms", a_product=1000 * (used(app) - began) / rows)


def used(app: App) -> float:
    """Seconds of processor time of the server and of the commands that have ended."""
    times = os.times()
    return postgres_cpu_s(app.settings.home) + times.children_user + times.children_system


def sizes(app: App) -> dict[str, int]:
    with app.engine.connect() as connection:
        row = connection.execute(text(SIZES)).mappings().one()
        return {name: int(value) for name, value in row.items()}


def log_position(app: App) -> int:
    with app.engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")) or 0)


if __name__ == "__main__":
    main()
