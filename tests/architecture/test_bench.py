"""The benchmarks: each can be run, and what they print is computed as they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import REPO

BENCH = REPO / "bench"
sys.path.insert(0, str(BENCH))

from bench.harness.processes import run  # noqa: E402
from bench.harness.side_by_side import Report, Sample, in_turn, ratio, table  # noqa: E402
from bench.index.growth import beyond  # noqa: E402


def scripts() -> list[str]:
    """Every script of the folder that says how it is run."""
    return sorted(
        path.name
        for path in BENCH.glob("*.py")
        if "argparse" in (text := path.read_text(encoding="utf-8")) and "__main__" in text
    )


@pytest.mark.parametrize("script", scripts())
def test_a_benchmark_says_how_it_is_run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--help"],
        capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_every_benchmark_of_make_bench_is_there() -> None:
    from bench.harness.run_all import commands

    named = {command[0] for command in commands([100_000], [Path("photos")])}
    assert [name for name in sorted(named) if not (BENCH / name).is_file()] == []


def test_ways_are_measured_in_turn_and_compared_round_by_round() -> None:
    called: list[str] = []
    ways = {name: lambda name=name: called.append(name) or float(len(called)) for name in "ab"}
    found = in_turn(ways, 3, unit="things", warmup=1)
    assert called == list("abababab")
    assert found["a"].values == (3.0, 5.0, 7.0) and found["b"].values == (4.0, 6.0, 8.0)
    assert ratio(found["b"], found["a"]).values == (4 / 3, 6 / 5, 8 / 7)
    assert str(found["a"]) == "5 (4 to 6) things"


def test_a_goal_is_missed_or_reached_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOOKALIKE_BENCH_RESULTS", str(tmp_path))
    report = Report("question", "A question")
    report.row(what="ours", rate=Sample((1.0, 2.0, 3.0), "a second"), rows=100_000)
    report.goal("fast", Sample((1.0, 2.0, 3.0), "times"), 2.0)
    report.goal("small", 5.0, 4.0, at_least=False)
    written = json.loads(report.write().read_text())
    assert [goal["met"] for goal in written["goals"]] == [True, False]
    assert "MISSED   small: 5 (<= 4)" in capsys.readouterr().out
    assert written["machine"]["cores"] >= 1
    assert list(table(written["rows"]))[2] == "| ours | 2 (1.5 to 2.5) a second | 100,000 |"


def test_beyond_what_was_measured_the_last_two_sizes_tell() -> None:
    assert beyond([10, 100, 1000], [7.0, 1.0, 10.0], 10_000) == pytest.approx(100.0)
    assert beyond([100, 1000], [1.0, 100.0], 10_000) == pytest.approx(10_000.0)
    assert beyond([100, 1000], [5.0, 5.9], 10_000) == pytest.approx(14.9), "a fixed cost and a line"
    assert beyond([100, 1000], [5.0, 4.0], 10_000) == 4.0


def test_a_process_that_fails_is_no_figure() -> None:
    ran = run([sys.executable, "-c", "print('x' * 10)"])
    assert ran.printed.strip() == "x" * 10 and ran.peak_mb > 1
    with pytest.raises(RuntimeError, match="ended with 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"])
