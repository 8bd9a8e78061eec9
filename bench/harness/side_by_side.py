"""Measures alternatives alternately in one run, and collects the figures in a report.

A `BenchmarkReport` has rows of figures, goals and whether they were reached, the machine and the
command. It is printed, and written as JSON to the folder `LOOKALIKE_BENCH_RESULTS` (default:
`bench/results`). `bench/harness/markdown_tables.py` turns that into the tables of
`docs/benchmarks.md`.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

RESULTS_FOLDER = Path(__file__).resolve().parents[1] / "results"
LIBRARIES = (
    "torch",
    "openvino",
    "faiss-cpu",
    "psycopg",
    "numpy",
    "pillow",
    "sentence-transformers",
)


@dataclass(frozen=True)
class Measurement:
    """One figure that was measured several times, in `unit`."""

    values: tuple[float, ...]
    unit: str

    def at(self, percent: float) -> float:
        """A percentile of the values; `percent` from 0 to 100."""
        return float(np.percentile(self.values, percent))

    @property
    def p50(self) -> float:
        return self.at(50)

    def __str__(self) -> str:
        """The median; with several values also their first and third quartile."""
        if len(self.values) == 1:
            return f"{_format_number(self.p50)} {self.unit}".strip()
        low, high = (_format_number(self.at(percent)) for percent in (25, 75))
        return f"{_format_number(self.p50)} ({low} to {high}) {self.unit}".strip()


def measure_alternately(
    alternatives: Mapping[str, Callable[[], float | None]],
    rounds: int,
    *,
    unit: str = "s",
    warmup: int = 1,
) -> dict[str, Measurement]:
    """Run all alternatives once per round, in `rounds` rounds after `warmup` discarded ones.

    A function that returns a figure is recorded with it, in `unit`; one that returns None is timed
    in seconds. Alternating ensures that a machine that becomes slower affects all alternatives.
    """
    values: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(warmup + rounds):
        for name, measure in alternatives.items():
            gc.collect()
            began = time.perf_counter()
            figure = measure()
            seconds = time.perf_counter() - began
            if number >= warmup:
                values[name].append(seconds if figure is None else figure)
    return {name: Measurement(tuple(figures), unit) for name, figures in values.items()}


def ratio(numerator: Measurement, denominator: Measurement) -> Measurement:
    """The first measurement divided by the second, round by round."""
    quotients = (a / b for a, b in zip(numerator.values, denominator.values, strict=True))
    return Measurement(tuple(quotients), "times")


@dataclass
class BenchmarkReport:
    """The result of one benchmark. `name` is also the name of its JSON file."""

    name: str
    title: str
    rows: list[dict[str, object]] = field(default_factory=list)
    goals: list[dict[str, object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, **figures: Measurement | float | int | str | None) -> None:
        """Add and print a row of the table; underscores in column names are shown as spaces."""
        self.rows.append({name: _to_json(value) for name, value in figures.items()})
        cells = (f"{_column_heading(name)}: {_format_value(v)}" for name, v in figures.items())
        print("  " + " | ".join(cells), flush=True)

    def goal(
        self, name: str, value: float | Measurement, bound: float, *, at_least: bool = True
    ) -> None:
        """Add and print a goal: the (median) value should be at least, or at most, `bound`."""
        figure = value.p50 if isinstance(value, Measurement) else float(value)
        met = figure >= bound if at_least else figure <= bound
        sign = ">=" if at_least else "<="
        self.goals.append({"name": name, "value": figure, "bound": bound, "sign": sign, "met": met})
        outcome = "reached" if met else "MISSED "
        print(f"  {outcome}  {name}: {_format_number(figure)} ({sign} {bound:g})", flush=True)

    def note(self, sentence: str) -> None:
        """Add and print a remark that is shown below the table."""
        self.notes.append(sentence)
        print(f"  {sentence}", flush=True)

    def write(self) -> Path:
        """Write the report as JSON; returns the file."""
        folder = Path(os.environ.get("LOOKALIKE_BENCH_RESULTS", RESULTS_FOLDER))
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self.name}.json"
        document = asdict(self) | {
            "machine": describe_machine(),
            "command": reproduce_command(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"written to {target}")
        return target


def reproduce_command() -> str:
    """The shell command that reproduces this run."""
    spec = sys.modules["__main__"].__spec__
    program = f"-m {spec.name}" if spec else Path(sys.argv[0]).name
    return " ".join(["python", program, *sys.argv[1:]])


def describe_machine() -> dict[str, object]:
    """Processor, number of cores, memory, and the versions of Python and the measured libraries."""
    return {
        "processor": _describe_processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _package_version(name))},
    }


def markdown_table(rows: Sequence[Mapping[str, object]]) -> Iterable[str]:
    """The lines of a Markdown table; columns in the order in which the rows first name them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield "| " + " | ".join(map(_column_heading, names)) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(_format_value(row.get(name)) for name in names) + " |"


def _to_json(value: object) -> object:
    if isinstance(value, Measurement):
        return {
            "text": str(value),
            "p50": value.p50,
            "p95": value.at(95),
            "p99": value.at(99),
            "low": value.at(25),
            "high": value.at(75),
            "rounds": len(value.values),
            "unit": value.unit,
        }
    return value


def _format_value(value: object) -> str:
    if isinstance(value, Mapping):
        return str(value["text"])
    if isinstance(value, float):
        return _format_number(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return "" if value is None else str(value)


def _column_heading(name: str) -> str:
    return name.replace("_", " ")


def _format_number(value: float) -> str:
    """A number with three significant digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _describe_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in pairs.items()}
    simd = "AVX-512" if "avx512f" in fields.get("flags", "") else "no AVX-512"
    return f"{fields.get('model name', 'unknown')}, {simd}"


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
