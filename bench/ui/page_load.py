"""How the pages load in Chromium: largest paint, layout shift, blocked time, requests and bytes.

    python -m bench.ui.page_load
    python -m bench.ui.page_load --products 500 --rounds 5
    python -m bench.ui.page_load --slowdown 4

A drawn catalogue is served by `lookalike page`, and looked at on a desktop and on a phone. For each
of them: the first load with an empty cache, a search by photo, the next page, and a second load.
The figures are what the browser's own interfaces report (LCP, CLS, long tasks, responses).
`--slowdown 4` is a processor of a quarter of the speed, as Lighthouse takes for a phone.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from bench.harness.side_by_side import BenchmarkReport, Measurement
from ingest.demo import draw_catalogue
from ingest.load import load

CHROMIUM = Path("/usr/bin/chromium")
SIZES = {"desktop": (1400, 900), "phone": (390, 844)}
PAGES = ("duplicates", "health", "index")
TIMEOUT_MS = 300_000
QUIET_MS = 1000
"""Milliseconds that the browser is watched after the page is complete."""

RECORD = """
window.figures = { shift: 0, blocked: 0, largest: 0 };
const on = (type, take) => new PerformanceObserver((list) => list.getEntries().forEach(take))
  .observe({ type, buffered: true });
on("layout-shift", (entry) => { if (!entry.hadRecentInput) figures.shift += entry.value; });
on("longtask", (entry) => { figures.blocked += Math.max(0, entry.duration - 50); });
on("largest-contentful-paint", (entry) => { figures.largest = entry.startTime; });
"""


class Watched:
    """A browser tab whose steps are measured."""

    def __init__(self, browser: Browser, size: tuple[int, int], slowdown: float) -> None:
        width, height = size
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, has_touch=width < 640
        )
        self._context.add_init_script(RECORD)
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(TIMEOUT_MS)
        self._context.new_cdp_session(self.page).send(
            "Emulation.setCPUThrottlingRate", {"rate": slowdown}
        )
        self._responses: list[int] = []
        self.page.on("requestfinished", lambda request: self._count(request))

    def _count(self, request: Any) -> None:
        sizes = request.sizes()
        self._responses.append(sizes["responseHeadersSize"] + max(0, sizes["responseBodySize"]))

    def figures(self) -> dict[str, float]:
        """What was measured since the last call."""
        page = self.page
        still = page.locator(".stApp[data-test-script-state=notRunning]")
        expect(still).to_be_visible(timeout=TIMEOUT_MS)
        page.wait_for_timeout(QUIET_MS)
        measured: dict[str, float] = page.evaluate(
            "() => { const now = { ...figures }; figures.shift = figures.blocked = 0; return now; }"
        )
        measured |= {"requests": len(self._responses), "bytes": sum(self._responses)}
        self._responses.clear()
        return measured

    def close(self) -> None:
        self._context.close()


def steps(
    browser: Browser, url: str, photo: Path, size: tuple[int, int], slowdown: float = 1
) -> dict[str, Any]:
    """The figures of each step of one visit."""
    watched = Watched(browser, size, slowdown)
    page, card = watched.page, watched.page.locator(".card").first
    page.goto(url)
    expect(card).to_be_visible(timeout=TIMEOUT_MS)
    measured = {"first load": watched.figures()}
    page.locator("input[type=file]").set_input_files(photo)
    expect(page.locator(".st-key-reference")).to_be_visible(timeout=TIMEOUT_MS)
    measured["search by photo"] = watched.figures()
    page.get_by_role("button", name="Next page").click()
    expect(page.get_by_role("heading", name="Results 13")).to_be_visible(timeout=TIMEOUT_MS)
    measured["next page"] = watched.figures()
    page.goto(url)
    expect(card).to_be_visible(timeout=TIMEOUT_MS)
    measured["second load"] = watched.figures()
    for path in PAGES:
        page.goto(f"{url}/{path}")
        expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=TIMEOUT_MS)
        measured[f"/{path}"] = watched.figures()
    watched.close()
    return measured


@contextmanager
def served(home: Path) -> Iterator[str]:
    """The URL of the pages of a catalogue."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"LOOKALIKE_HOME": str(home), "LOOKALIKE_PAGE_METRICS_PORT": "0"}
    process = subprocess.Popen(
        [Path(sys.executable).with_name("lookalike"), "page", "--port", str(port)],
        env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://localhost:{port}"
    try:
        while True:
            try:
                urlopen(f"{url}/_stcore/health").close()
                break
            except URLError:
                time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def prepare(home: Path, products: int) -> Path:
    """Make a catalogue with an index; returns a photo to search with."""
    source = draw_catalogue(home / "demo", products=products)
    with App(Settings(home=home, model="embedded")) as app:
        app.initialise()
        load(app.engine, app.catalog, app.encoders, app.limits, source)
        app.indexer.rebuild()
    with (home / "demo" / "queries.csv").open(encoding="utf-8", newline="") as file:
        return home / "demo" / next(csv.DictReader(file))["query"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--products", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slowdown", type=float, default=1, help="of the processor, times")
    arguments = parser.parse_args()
    report = BenchmarkReport("page_load", "How the pages load in Chromium")
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as folder:
        home = Path(folder)
        embedded_server.start(home, {"fsync": "off"})
        photo = prepare(home, arguments.products)
        with served(home) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            steps(browser, url, photo, SIZES["desktop"])  # loads the model and the index
            for name, size in SIZES.items():
                visits = [
                    steps(browser, url, photo, size, arguments.slowdown)
                    for _ in range(arguments.rounds)
                ]
                _report(report, name, visits)
            browser.close()
        embedded_server.stop(home)
    report.write()


def _report(report: BenchmarkReport, device: str, visits: list[dict[str, Any]]) -> None:
    for step in visits[0]:
        each = [visit[step] for visit in visits]

        def measured(name: str, unit: str, each: list[Any] = each) -> Measurement:
            return Measurement(tuple(figures[name] for figures in each), unit)

        report.row(
            device=device, step=step, LCP=measured("largest", "ms"), CLS=measured("shift", ""),
            TBT=measured("blocked", "ms"), requests=measured("requests", ""),
            bytes=measured("bytes", ""),
        )  # fmt: skip
    worst = max(visit[step]["shift"] for visit in visits for step in visit)
    report.goal(f"largest layout shift of a step, {device}", worst, 0.1, at_least=False)


if __name__ == "__main__":
    main()
