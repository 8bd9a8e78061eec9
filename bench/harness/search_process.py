"""Searches with whichever version of Lookalike it can import, until its input ends.

    PYTHONPATH=../lookalike-before python -m bench.harness.search_process postgresql://…

Prints a line after the first one, and at the end what `bench/operations/migrate.py` reads: how many
searches there were, what failed, the slowest.
"""

from __future__ import annotations

import json
import select
import sys
import time
from typing import Any

import numpy as np

from app.bootstrap import App
from app.config import Settings
from app.types import Query


def searched(app: App) -> dict[str, Any]:
    """Ten products for one random vector after the other."""
    model = app.catalog.model()
    random = np.random.default_rng(0)
    done, failed, slowest = 0, [], 0.0
    while not select.select([sys.stdin], [], [], 0)[0]:
        vector = random.standard_normal(model.dim).astype(np.float32)
        vector /= np.linalg.norm(vector)
        began = time.perf_counter()
        try:
            found = app.search.search(Query(vector=vector, model_id=model.id, k=10))
            assert len(found.matches) == 10, found.plan
            done += 1
        except Exception as exc:
            failed.append(f"{type(exc).__name__}: {exc}"[:300])
        slowest = max(slowest, time.perf_counter() - began)
        if done + len(failed) == 1:
            print("searching", flush=True)
    return {"done": done, "failed": failed, "slowest_s": slowest}


def main() -> None:
    settings = Settings(database_url=sys.argv[1], model="embedded", sample_queries=False)
    with App(settings) as app:
        print(json.dumps(searched(app)))


if __name__ == "__main__":
    main()
