"""The benchmarks: each prints its usage, and the harness computes its figures correctly."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from bench.harness.processes import run
from bench.harness.run_all import commands
from bench.harness.side_by_side import (
    BenchmarkReport,
    Measurement,
    markdown_table,
    measure_alternately,
    ratio,
)
from bench.index.growth import extrapolate
from bench.search.cross_fitting import Judged, report_divisions
from support.paths import REPO

pytestmark = pytest.mark.xdist_group("clip")  # one process imports the libraries of models

BENCH = REPO / "bench"


def modules() -> list[str]:
    """Every module of bench/ that parses a command line."""
    return sorted(
        ".".join(path.relative_to(REPO).with_suffix("").parts)
        for path in BENCH.rglob("*.py")
        if "argparse" in (text := path.read_text(encoding="utf-8")) and "__main__" in text
    )


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", modules())
def test_a_benchmark_prints_its_usage(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    assert ended.value.code == 0 and "usage:" in capsys.readouterr().out


def test_the_lead_of_one_half_of_the_products_is_judged_on_the_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Objects find what is pasted, from a lead of .4, and hide what the shop shows, at .2.
    sets = {
        "pasted": [Judged(f"P{number}", 9, 0, 0.4) for number in range(20)],
        "shop": [Judged(f"S{number}", 0, 9, 0.2) for number in range(20)],
    }
    report_divisions(sets, ("shop",))
    printed = capsys.readouterr().out
    for name, gain in (("pasted", "+1.000"), ("shop", "+0.000")):
        for k in (1, 5):
            assert f"{name} recall@{k}: {gain} [{gain}, {gain}]" in printed


def test_every_benchmark_of_make_bench_exists() -> None:
    named = {command[0] for command in commands([100_000], [Path("photos")])}
    assert named <= set(modules())


def test_alternatives_are_measured_alternately_and_compared_round_by_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gc.collect", lambda: 0)  # eight times, over all that tests have imported
    called: list[str] = []
    alternatives = {
        name: lambda name=name: called.append(name) or float(len(called)) for name in "ab"
    }
    measurements = measure_alternately(alternatives, 3, unit="things", warmup=1)
    assert called == list("abababab")
    a, b = measurements["a"], measurements["b"]
    assert a.values == (3.0, 5.0, 7.0) and b.values == (4.0, 6.0, 8.0)
    assert ratio(b, a).values == (4 / 3, 6 / 5, 8 / 7)
    assert str(a) == "5 (4 to 6) things"


def test_a_goal_is_missed_or_reached_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOOKALIKE_BENCH_RESULTS", str(tmp_path))
    report = BenchmarkReport("name", "A title")
    report.row(system="Lookalike", rate=Measurement((1.0, 2.0, 3.0), "/s"), rows=100_000)
    report.goal("fast", Measurement((1.0, 2.0, 3.0), "times"), 2.0)
    report.goal("small", 5.0, 4.0, at_least=False)
    written = json.loads(report.write().read_text())
    assert [goal["met"] for goal in written["goals"]] == [True, False]
    assert "MISSED   small: 5 (<= 4)" in capsys.readouterr().out
    assert written["machine"]["cores"] >= 1
    lines = list(markdown_table(written["rows"]))
    assert lines[2] == "| Lookalike | 2 (1.5 to 2.5) /s | 100,000 |"


def test_costs_of_larger_sizes_are_extrapolated_from_the_last_two() -> None:
    assert extrapolate([10, 100, 1000], [7.0, 1.0, 10.0], 10_000) == pytest.approx(100.0)
    assert extrapolate([100, 1000], [1.0, 100.0], 10_000) == pytest.approx(10_000.0)
    assert extrapolate([100, 1000], [5.0, 5.9], 10_000) == pytest.approx(14.9), (
        "a fixed cost and a line"
    )
    assert extrapolate([100, 1000], [5.0, 4.0], 10_000) == 4.0


def test_a_process_that_fails_is_no_figure() -> None:
    process = run([sys.executable, "-c", "print('x' * 10)"])
    assert process.output.strip() == "x" * 10 and process.peak_mb > 1
    with pytest.raises(RuntimeError, match="ended with 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"])
