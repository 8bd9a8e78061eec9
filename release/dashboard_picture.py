"""Draws the dashboard of Grafana from the answers of a Prometheus, without Grafana.

    python release/dashboard_picture.py http://127.0.0.1:9090 FILE.png [MINUTES]

Every panel of `deploy/monitoring/grafana/dashboards/lookalike.json` at its place in the grid, with
what Prometheus answers its queries for the last minutes. Needs matplotlib (the extra `bench`).
"""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import matplotlib

matplotlib.use("agg")
from matplotlib import dates, pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "deploy/monitoring/grafana/dashboards/lookalike.json"
STEPS = 240
"""Points of a curve."""

CELL = (0.5, 0.28)
"""Inches of a column and a row of the grid, which has 24 columns."""

Series = tuple[str, list[float], list[float]]
"""Name, times (seconds) and values."""


def answers(address: str, panel: dict[str, Any], start: float, end: float) -> list[Series]:
    """What Prometheus answers the queries of a panel."""
    step = max(1, round((end - start) / STEPS))
    found: list[Series] = []
    for target in panel["targets"]:
        # Grafana's own variables, with what it would put in.
        query = target["expr"].replace("$__rate_interval", f"{max(60, 4 * step)}s")
        query = query.replace("$__range", f"{round(end - start)}s")
        asked = urlencode({"query": query, "start": start, "end": end, "step": step})
        with urlopen(f"{address}/api/v1/query_range?{asked}", timeout=30) as answer:
            for each in json.load(answer)["data"]["result"]:
                name = re.sub(
                    r"{{(\w+)}}",
                    lambda match, labels=each["metric"]: labels.get(match[1], ""),
                    target["legendFormat"],
                )
                pairs = [(float(at), float(value)) for at, value in each["values"]]
                found.append((name, [at for at, _ in pairs], [value for _, value in pairs]))
    return found


def text(value: float, unit: str) -> str:
    """A value with its unit, as short as the scale of a panel needs it."""
    match unit:
        case "bool_on_off":
            return "On" if value else "Off"
        case "percentunit":
            return f"{100 * value:.4g} %"
        case "s" if 0 < abs(value) < 1:
            return f"{1000 * value:.3g} ms"
        case "s" if abs(value) >= 120:
            return f"{value / 60:.3g} min"
        case "s":
            return f"{value:.3g} s"
        case "reqps":
            return f"{value:.3g}/s"
        case "dateTimeAsIso":
            return datetime.fromtimestamp(value / 1000, UTC).isoformat(" ", "seconds")
    return f"{value:,.4g}"


def draw(panel: dict[str, Any], series: list[Series], axes: Axes) -> None:
    """Draw a panel: the last values, or a curve for each series."""
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    axes.set_title(panel["title"], loc="left", fontsize=10, fontweight="bold")
    if panel["type"] == "stat" or not series:
        axes.axis("off")
        shown = [
            f"{name}: {text(values[-1], unit)}" if len(series) > 1 else text(values[-1], unit)
            for name, _, values in sorted(series)
        ]
        axes.text(
            0.5, 0.45, "\n".join(shown) or "No data", ha="center", va="center",
            fontsize=12 if len(shown) > 1 else 20,
        )  # fmt: skip
        return
    for name, times, values in series:
        axes.plot([datetime.fromtimestamp(at, UTC) for at in times], values, lw=1.2, label=name)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value, unit)))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    highest = max(max(values) for _, _, values in series)
    axes.set_ylim(0, 1.35 * highest if highest > 0 else 1)  # room for the names
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=7))
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, ncols=3, loc="upper left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def picture(address: str, file: Path, minutes: float) -> None:
    """Write the picture of the last minutes."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    end = time.time()
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = pyplot.figure(figsize=(24 * CELL[0], height * CELL[1]), dpi=100)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        # A margin in each cell, for the title and the scales.
        left, width = (place["x"] + 1.1) / 24, (place["w"] - 1.4) / 24
        bottom = 1 - (place["y"] + place["h"] - 1) / height
        axes = figure.add_axes((left, bottom, width, (place["h"] - 2.2) / height))
        draw(panel, answers(address, panel, end - 60 * minutes, end), axes)
    figure.savefig(file)


if __name__ == "__main__":
    picture(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 30.0)
