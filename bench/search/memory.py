"""Memory of a searching process: with one index, while it is replaced, and a minute later.

    python -m bench.search.memory --rows 1000000
    python -m bench.search.memory --rows 1000000 --bits 16   # the vectors as they are in the table

Photos are searched, so the encoder is loaded. The build runs in a process of its own, which is
measured too. Sizes are resident memory in MB, with the files that are mapped into the process.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

from app.bootstrap import App
from app.config import Settings
from app.db.queries import index_builds
from app.index import faiss_index
from app.index.file_store import RELEASE_S
from app.types import Query
from bench.data.catalogue import catalogue
from bench.harness.processes import run
from bench.harness.side_by_side import BenchmarkReport
from bench.search.index_swap import publish_build
from bench.search.latency import demo_photos

GOALS = {"steady": 800.0, "peak": 1000.0}
"""MB of a searching process with the embedded encoder, at a million pictures."""


def memory_mb() -> dict[str, float]:
    """Resident memory now, the part of it that is no file, and the peak since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    names = {"VmRSS": "resident", "RssAnon": "without files", "VmHWM": "peak"}
    return {
        name: int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024 / 1e6
        for field, name in names.items()
    }


def reset_peak() -> None:
    """Begin a new peak at the current memory."""
    Path("/proc/self/clear_refs").write_text("5")


def opened(home: str) -> App:
    return App(Settings(home=Path(home), model="embedded", sample_queries=False))


def build(home: str, bits: int) -> None:
    """Rebuild the index; prints its figures. With `bits` only that code is tried."""
    codes = [code for code in faiss_index.CODES if bits in (0, code.bits)]
    with opened(home) as app, patch.object(faiss_index, "CODES", tuple(codes)):
        app.catalog.model()
        before = memory_mb()["resident"]
        made = app.indexer.rebuild()
        figures = {"before": before, "peak": memory_mb()["peak"], "file": made.size / 1e6}
        figures |= {"rows": made.rows, "recall": made.recall_at_10, "seconds": made.seconds}
        print(json.dumps(figures | {"parameters": json.dumps(dict(made.parameters))}))


def search(home: str) -> None:
    """Search, while another process publishes a build; prints memory and p50 by phase."""
    photos = [photo.read_bytes() for photo in demo_photos()]
    phases: dict[str, dict[str, float]] = {}
    with opened(home) as app:

        def ask(searches: int) -> int | None:
            ms, plan = [], None
            for number in range(searches):
                query = Query(picture=photos[number % len(photos)], k=10, objects=False)
                plan = app.search.search(query).plan
                assert plan.path == "faiss", plan
                ms.append(plan.ms["search"] + plan.ms["details"])
            assert plan is not None
            p50_ms[0] = float(np.median(ms))
            return plan.build

        p50_ms = [0.0]
        app.catalog.model()
        phases["before the first search"] = memory_mb()
        first = ask(300)
        phases["one index"] = memory_mb() | {"p50_ms": p50_ms[0]}
        reset_peak()
        run([sys.executable, "-m", "bench.search.memory", "--publish", home])
        while ask(1) == first:
            time.sleep(0.05)
        ask(100)
        phases["after a switch"] = memory_mb()
        time.sleep(RELEASE_S + 1)
        ask(300)
        phases["a minute later"] = memory_mb() | {"p50_ms": p50_ms[0]}
    print(json.dumps(phases))


def measure(home: str, rows: int, bits: int) -> None:
    name = f"memory_{rows}" + (f"_{bits}" if bits else "")
    report = BenchmarkReport(name, f"Memory, {rows:,} pictures")
    this = [sys.executable, "-m", "bench.search.memory"]
    built = json.loads(run([*this, "--build", home, str(bits)]).output.splitlines()[-1])
    report.row(build="figures", **built)
    phases = json.loads(run([*this, "--search", home]).output.splitlines()[-1])
    for phase, figures in phases.items():
        report.row(phase=phase, **figures)
    if rows == 1_000_000 and not bits:
        beyond = built["peak"] - built["before"] - built["file"]
        report.goal("build, beyond the index, MB", beyond, 1000, at_least=False)
        steady = max(phases["one index"]["resident"], phases["a minute later"]["resident"])
        report.goal("searching process, MB", steady, GOALS["steady"], at_least=False)
        peak = max(phases["one index"]["peak"], phases["a minute later"]["peak"])
        report.goal("its peak, MB", peak, GOALS["peak"], at_least=False)
    report.write()


def publish(home: str) -> None:
    """Publish a build with other bytes and the same rows."""
    with opened(home) as app:
        with app.engine.connect() as connection:
            newest = index_builds.usable(connection, app.catalog.model().id)[0]
        publish_build(app, newest.id)


def main() -> None:
    if sys.argv[1:2] == ["--build"]:
        build(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["--search"]:
        search(sys.argv[2])
    elif sys.argv[1:2] == ["--publish"]:
        publish(sys.argv[2])
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--rows", type=int, default=100_000)
        parser.add_argument("--bits", type=int, choices=(0, 2, 4, 16), default=0)
        options = parser.parse_args()
        with catalogue(options.rows) as app:
            measure(str(app.settings.home), options.rows, options.bits)


if __name__ == "__main__":
    main()
