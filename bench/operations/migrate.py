"""What migrations cost a service that runs: searches and writes that failed, and the slowest.

    python -m bench.operations.migrate --rows 100000
    python -m bench.operations.migrate --rows 100000 --service ../lookalike-before

Without --service, plain SQL reads and writes while the database goes from 0002 up to the newest
migration and down again. With it, the service of another checkout of Lookalike does, from the
migration that code is written for, upwards only.
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

from alembic import command
from alembic.config import Config

from app.bootstrap import App
from app.db.engine import database_url
from app.operations.migrate import migrate
from bench.data.catalogue import DIM, catalogue
from bench.harness.load_generator import Tally, under_load

REPO = Path(__file__).resolve().parents[2]
FIRST = "0002"
"""The oldest migration whose tables the load of plain SQL knows."""


def timed(step: Callable[[], object]) -> float:
    """Seconds it took."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def downgrade(app: App, revision: str) -> None:
    """What `alembic downgrade` does, on the database of `app`."""
    config = Config(toml_file=str(REPO / "pyproject.toml"))
    with app.engine.connect() as connection:
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.commit()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()


def plain(app: App) -> None:
    """Up and down again under readers and a writer that speak SQL."""
    downgrade(app, FIRST)
    url = database_url(app.settings)
    for name, step in (
        ("upgrade", lambda: migrate(app.engine)),
        ("downgrade", lambda: downgrade(app, FIRST)),
    ):
        with under_load(url, DIM) as tallies:
            time.sleep(2)
            seconds = timed(step)
            time.sleep(2)
        print(f"{name} took {seconds:.1f} s")
        report(tallies)


def with_service(app: App, folder: Path) -> None:
    """Upwards while the service of another checkout answers."""
    downgrade(app, told(folder, "from app.db.schema import SCHEMA_REVISION as r; print(r)"))
    with other_service(folder, database_url(app.settings)) as tallies:
        time.sleep(5)
        seconds = timed(lambda: migrate(app.engine))
        time.sleep(5)
    print(f"upgrade took {seconds:.1f} s")
    report(tallies)


def report(tallies: dict[str, Tally]) -> None:
    for name, tally in tallies.items():
        print(f"  {name}: {tally}", *sorted(set(tally.failed))[:3], sep="\n    ")


def told(folder: Path, program: str) -> str:
    """What a program prints that runs in another checkout; Python looks there first."""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextmanager
def other_service(folder: Path, url: str) -> Iterator[dict[str, Tally]]:
    """The service of another checkout, in a process of its own."""
    words = [sys.executable, str(REPO / "bench" / "harness" / "search_process.py"), url]
    tallies: dict[str, Tally] = {}
    process = subprocess.Popen(
        words,
        env=os.environ | {"PYTHONPATH": str(folder.resolve())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first search is done
    try:
        yield tallies
    finally:
        said, _ = process.communicate("")
        tallies["searches"] = Tally(**json.loads(said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--service", type=Path, help="folder of another checkout")
    words = parser.parse_args()
    with catalogue(words.rows, hnsw=True) as app:
        migrate(app.engine)  # for the identity keys, which a catalogue in use has
        app.indexer.rebuild()
        if words.service:
            with_service(app, words.service)
        else:
            plain(app)


if __name__ == "__main__":
    main()
