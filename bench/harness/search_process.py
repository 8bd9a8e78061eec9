"""Searches without a pause, with the installed version of Lookalike, until stdin is closed.

    PYTHONPATH=../lookalike-before python -m bench.harness.search_process postgresql://…

`PYTHONPATH` selects the checkout. Prints a line after the first search, and at the end JSON for
`bench/operations/migrate.py`: number of searches, failures, the slowest in seconds.
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


def search_until_stdin_closes(app: App) -> dict[str, Any]:
    """Search ten products for one random vector after the other; returns the JSON summary."""
    model = app.catalog.model()
    random = np.random.default_rng(0)
    done, failed, slowest = 0, [], 0.0
    while not select.select([sys.stdin], [], [], 0)[0]:
        vector = random.standard_normal(model.dim).astype(np.float32)
        vector /= np.linalg.norm(vector)
        began = time.perf_counter()
        try:
            result = app.search.search(Query(vector=vector, model_id=model.id, k=10))
            assert len(result.matches) == 10, result.plan
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
        print(json.dumps(search_until_stdin_closes(app)))


if __name__ == "__main__":
    main()
