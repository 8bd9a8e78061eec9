"""What changes since a build cost a search, as the worker measures it.

    python -m bench.index.delta_cost [--rows 40000] [--rounds 5]

More and more embeddings of one build are rewritten; for each number the share by which they
lengthen the statement of a search is measured several times. The worker rebuilds above
`LOOKALIKE_WORKER_COST`.
"""

from __future__ import annotations

import argparse

from sqlalchemy import text

from app.db.engine import snapshot
from app.index import delta_cost
from bench.data.catalogue import catalogue
from bench.harness.side_by_side import BenchmarkReport, Measurement

CHANGED = (100, 200, 500, 1000, 2000, 4000)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=40_000, help="embeddings")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report = BenchmarkReport("delta_cost", "What changes since a build cost a search")
    with catalogue(options.rows, own=True) as app:
        build, model, done = app.indexer.rebuild(), app.catalog.model(), 0
        for changed in CHANGED:
            with app.engine.begin() as connection:
                connection.execute(
                    text(
                        "UPDATE embedding SET vec = vec WHERE picture_id BETWEEN :first AND :last"
                    ),
                    {"done": done, "to": changed},
                )
            done = changed
            with snapshot(app.engine) as connection:
                shares = tuple(
                    delta_cost.measure(
                        connection, model, build, changed,
                        max_delta_rows=app.settings.max_delta_rows,
                    )
                    for _ in range(options.rounds)
                )  # fmt: skip
            share = f"{changed / options.rows:.1%}"
            report.row(changed=changed, of_the_index=share, longer_by=Measurement(shares, "times"))
    report.write()


if __name__ == "__main__":
    main()
