"""Cost of each operation by size of the catalogue, with an extrapolation to larger ones.

    pip install -e ".[bench]"
    python -m bench.index.growth --rows 10000 --rows 100000 --rows 1000000
    LOOKALIKE_BENCH_KEEP=FOLDER python -m bench.index.growth --rows 10000000

Products have titles as shops write them, one in ten is a duplicate. Beyond the sizes that were
measured the figures are extrapolated: the greater of the power law and the straight line through
the two largest sizes.

In a kept catalogue each phase is measured once, so that a run that was interrupted goes on where it
was; `--again PHASE` measures a phase again, and `--phase` only some. Ten million products are
loaded without thumbnails and without pgvector's index (`bench.data.large_catalogue`). They need
35 GB of disk, more for the backup, 8 GB of memory, and two to three hours on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from app.bootstrap import App
from bench.data.catalogue import LARGE_ROWS, catalogue
from bench.harness.side_by_side import BenchmarkReport, Measurement
from bench.index.growth_phases import PHASES, Figures, run_searches

EXTRAPOLATED_ROWS = (10_000_000, 100_000_000)
FIGURES_FILE = "growth.json"


def measure_catalogue(app: App, phases: Sequence[str], again: Sequence[str]) -> Figures:
    """The figures of one catalogue; those of phases that were measured before are read from its
    folder, except of the phases `again`."""
    file = app.settings.home / FIGURES_FILE
    measured: dict[str, Figures] = json.loads(file.read_text()) if file.exists() else {}
    for name in phases:
        if name not in measured or name in again:
            measured[name] = PHASES[name](app)
            for what, value in measured[name].items():
                print(f"  {what}: {value:,.3g}", flush=True)
            file.write_text(json.dumps(measured, indent=1))
    every = (measured[name] for name in PHASES if name in measured)
    return {what: value for figures in every for what, value in figures.items()}


def extrapolate(sizes: Sequence[int], values: Sequence[float], rows: int) -> float:
    """Extrapolate a cost to `rows`, cautiously.

    The greater of the power law and the straight line through the last two of `sizes`, and at
    least the last value.
    """
    (n, m), (a, b) = sizes[-2:], values[-2:]
    exponent = math.log(b / a) / math.log(m / n) if a > 0 and b > 0 else 0.0
    return max(b, b * (rows / m) ** exponent, b + (b - a) * (rows - m) / (m - n))


def plot(rows: Sequence[int], figures: Mapping[str, Sequence[float]], target: Path) -> None:
    """Write a PNG with one log-log chart per unit; extrapolated values are dotted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    units = (("ms", "milliseconds"), ("s", "seconds"), ("MB", "megabytes"))
    chart, axes = pyplot.subplots(1, 3, figsize=(16, 5.5), layout="constrained")
    for axis, (unit, name) in zip(axes, units, strict=True):
        for what, values in figures.items():
            if what.rpartition(", ")[2] not in (unit, f"processor {unit}") or len(values) < 2:
                continue
            (line,) = axis.plot(
                rows, values, marker="o", markersize=4, label=what.rpartition(", ")[0]
            )
            larger = [n for n in EXTRAPOLATED_ROWS if n > rows[-1]]
            beyond = [extrapolate(rows, values, n) for n in larger]
            axis.plot([rows[-1], *larger], [values[-1], *beyond], ":", color=line.get_color())
        axis.set(xscale="log", yscale="log", xlabel="products", title=name)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    chart.suptitle("Costs by size of the catalogue; dotted: extrapolated", fontsize=12)
    target.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(target, dpi=90)


def main() -> None:
    if sys.argv[1:2] == ["--search"]:
        run_searches(sys.argv[2])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, action="append", help="catalogue size (repeatable)")
    parser.add_argument("--phase", action="append", choices=PHASES, help="only these (repeatable)")
    parser.add_argument("--again", action="append", choices=PHASES, default=[])
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    options = parser.parse_args()
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot draws with matplotlib: pip install matplotlib")
    rows = sorted(options.rows or (10_000, 100_000))
    phases = options.phase or list(PHASES)
    results: dict[str, dict[int, float]] = {}
    for size in rows:
        print(f"{size:,} products", flush=True)
        own = not os.environ.get("LOOKALIKE_BENCH_KEEP")
        with catalogue(size, pgvector=size < LARGE_ROWS, titled=True, own=own) as app:
            for name, value in measure_catalogue(app, phases, options.again).items():
                results.setdefault(name, {})[size] = value
    report = BenchmarkReport("growth", "Growth")
    for name, values in results.items():
        figures: dict[str, Measurement | float | str] = {f"{n:,}": v for n, v in values.items()}
        extrapolated = {
            f"{n:,} (extrapolated)": extrapolate(list(values), list(values.values()), n)
            for n in EXTRAPOLATED_ROWS
            if len(values) > 1 and n > rows[-1]
        }
        report.row(**{"what": name} | figures | extrapolated)
    report.write()
    if options.plot:
        whole = {name: list(v.values()) for name, v in results.items() if len(v) == len(rows)}
        plot(rows, whole, options.plot)


if __name__ == "__main__":
    main()
