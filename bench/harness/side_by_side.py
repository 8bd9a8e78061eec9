"""Side by side: ways of doing one thing, measured in turn in one run, printed as ratios.

Every benchmark here makes a `Report`: rows with figures, goals with whether they were reached, the
machine and the command. It is printed, and written as JSON to the folder `LOOKALIKE_BENCH_RESULTS`
(default: `bench/results`), from which
`bench/harness/markdown_tables.py` makes the tables of `docs/benchmarks.md`.
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

FOLDER = Path(__file__).resolve().parents[1] / "results"
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
class Sample:
    """One figure, measured several times, in `unit`."""

    values: tuple[float, ...]
    unit: str

    def at(self, percent: float) -> float:
        """A percentile, 0 to 100."""
        return float(np.percentile(self.values, percent))

    @property
    def p50(self) -> float:
        return self.at(50)

    def __str__(self) -> str:
        """The median, with the middle half of the values where there are several."""
        if len(self.values) == 1:
            return f"{_short(self.p50)} {self.unit}".strip()
        low, high = (_short(self.at(percent)) for percent in (25, 75))
        return f"{_short(self.p50)} ({low} to {high}) {self.unit}".strip()


def in_turn(
    ways: Mapping[str, Callable[[], float | None]], rounds: int, *, unit: str = "s", warmup: int = 1
) -> dict[str, Sample]:
    """Each way once, then each again, `rounds` times; a way that returns no figure is timed.

    In turn, so that a machine that grows slower meanwhile is slower for all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warmup + rounds):
        for name, way in ways.items():
            gc.collect()
            began = time.perf_counter()
            figure = way()
            took = time.perf_counter() - began
            if number >= warmup:
                found[name].append(took if figure is None else figure)
    return {name: Sample(tuple(values), unit) for name, values in found.items()}


def ratio(ours: Sample, theirs: Sample) -> Sample:
    """Round by round, the one by the other."""
    return Sample(tuple(a / b for a, b in zip(ours.values, theirs.values, strict=True)), "times")


@dataclass
class Report:
    """What one benchmark found. `question` is its name, and that of its file."""

    question: str
    title: str
    rows: list[dict[str, object]] = field(default_factory=list)
    goals: list[dict[str, object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, **figures: Sample | float | int | str | None) -> None:
        """One line of the table; a name's underscores are shown as spaces."""
        self.rows.append({name: _plain(value) for name, value in figures.items()})
        print(
            "  " + " | ".join(f"{_spoken(name)}: {_said(v)}" for name, v in figures.items()),
            flush=True,
        )

    def goal(
        self, name: str, value: float | Sample, bound: float, *, at_least: bool = True
    ) -> None:
        """A figure that should be at least, or at most, `bound`."""
        figure = value.p50 if isinstance(value, Sample) else float(value)
        met = figure >= bound if at_least else figure <= bound
        sign = ">=" if at_least else "<="
        self.goals.append({"name": name, "value": figure, "bound": bound, "sign": sign, "met": met})
        print(
            f"  {'reached' if met else 'MISSED '}  {name}: {_short(figure)} ({sign} {bound:g})",
            flush=True,
        )

    def note(self, sentence: str) -> None:
        """Something a reader of the table must know."""
        self.notes.append(sentence)
        print(f"  {sentence}", flush=True)

    def write(self) -> Path:
        """The report as JSON."""
        folder = Path(os.environ.get("LOOKALIKE_BENCH_RESULTS", FOLDER))
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self.question}.json"
        whole = asdict(self) | {
            "machine": machine(),
            "command": command(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        target.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        print(f"written to {target}")
        return target


def command() -> str:
    """The command that reproduces this run, as a line for a shell."""
    spec = sys.modules["__main__"].__spec__
    program = f"-m {spec.name}" if spec else Path(sys.argv[0]).name
    return " ".join(["python", program, *sys.argv[1:]])


def machine() -> dict[str, object]:
    """The processor, its cores, the memory and the versions of what is measured."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def table(rows: Sequence[Mapping[str, object]]) -> Iterable[str]:
    """Rows as a table in Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield "| " + " | ".join(map(_spoken, names)) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(_said(row.get(name)) for name in names) + " |"


def _plain(value: object) -> object:
    if isinstance(value, Sample):
        return {
            "said": str(value),
            "p50": value.p50,
            "p95": value.at(95),
            "p99": value.at(99),
            "low": value.at(25),
            "high": value.at(75),
            "times": len(value.values),
            "unit": value.unit,
        }
    return value


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return str(value["said"])
    if isinstance(value, float):
        return _short(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return "" if value is None else str(value)


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _short(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    said = {key.strip(): value.strip() for key, value in found.items()}
    wide = "AVX-512" if "avx512f" in said.get("flags", "") else "no AVX-512"
    return f"{said.get('model name', 'unknown')}, {wide}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
