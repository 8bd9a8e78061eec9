"""Effect of migrations on a running service: failed searches and writes, and the slowest.

    python -m bench.operations.migrate --rows 100000
    python -m bench.operations.migrate --rows 100000 --service ../lookalike-before

Without --service, plain SQL reads and writes while the database is upgraded from migration 0002 to
the newest one and downgraded again. With --service, another checkout of Lookalike searches during
the upgrade, which starts at the migration that checkout was written for.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command as alembic_command
from alembic.config import Config

from app.bootstrap import App
from app.db.engine import database_url
from app.operations.migrate import migrate
from bench.data.catalogue import catalogue
from bench.data.vectors import DIM
from bench.harness.load_generator import Tally, under_load

REPO = Path(__file__).resolve().parents[2]
OLDEST_REVISION = "0002"
"""The oldest migration that the plain SQL load supports."""


def elapsed_s(step: Callable[[], object]) -> float:
    """Duration of `step` in seconds."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def downgrade(app: App, revision: str) -> None:
    """`alembic downgrade` on the database of `app`."""
    config = Config(toml_file=str(REPO / "pyproject.toml"))
    with app.engine.connect() as connection:
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.commit()
        config.attributes["connection"] = connection
        alembic_command.downgrade(config, revision)
        connection.commit()


def measure_plain_sql(app: App) -> None:
    """Upgrade and downgrade under a load of plain SQL."""
    downgrade(app, OLDEST_REVISION)
    url = database_url(app.settings)
    for name, step in (
        ("upgrade", lambda: migrate(app.engine)),
        ("downgrade", lambda: downgrade(app, OLDEST_REVISION)),
    ):
        with under_load(url, DIM) as tallies:
            time.sleep(2)
            seconds = elapsed_s(step)
            time.sleep(2)
        print(f"{name} took {seconds:.1f} s")
        print_tallies(tallies)


def measure_other_service(app: App, folder: Path) -> None:
    """Upgrade while the service of another checkout searches."""
    downgrade(app, output_of(folder, "from app.db.schema import SCHEMA_REVISION as r; print(r)"))
    with running_service(folder, database_url(app.settings)) as tallies:
        time.sleep(5)
        seconds = elapsed_s(lambda: migrate(app.engine))
        time.sleep(5)
    print(f"upgrade took {seconds:.1f} s")
    print_tallies(tallies)


def print_tallies(tallies: dict[str, Tally]) -> None:
    """Print the counts, with up to three different errors each."""
    for name, tally in tallies.items():
        print(f"  {name}: {tally}", *sorted(set(tally.failed))[:3], sep="\n    ")


def output_of(folder: Path, program: str) -> str:
    """Standard output of a Python program run in another checkout, with its modules."""
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return process.stdout.strip()


@contextmanager
def running_service(folder: Path, url: str) -> Iterator[dict[str, Tally]]:
    """Runs the service of another checkout as a child process; fills the tallies at the end."""
    command = [sys.executable, str(REPO / "bench" / "harness" / "search_process.py"), url]
    tallies: dict[str, Tally] = {}
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(folder.resolve())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # printed after the first search
    try:
        yield tallies
    finally:
        output, _ = process.communicate("")
        tallies["searches"] = Tally(**json.loads(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--service", type=Path, help="folder of another checkout")
    options = parser.parse_args()
    with catalogue(options.rows, pgvector=True) as app:
        migrate(app.engine)  # computes the identity keys, as in a real catalogue
        app.indexer.rebuild()
        if options.service:
            measure_other_service(app, options.service)
        else:
            measure_plain_sql(app)


if __name__ == "__main__":
    main()
