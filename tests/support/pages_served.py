"""Pages served by `lookalike page` to a real browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip
SOON_MS = 120_000
"""Timeout in milliseconds for expected page content; generous for busy machines."""


@contextmanager
def pages_of(**settings: str) -> Iterator[str]:
    """`lookalike page` with these settings in its environment; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"page_metrics_port": "0"} | settings
    process = subprocess.Popen(
        [Path(sys.executable).with_name("lookalike"), "page", "--port", str(port)],
        env=os.environ | {f"LOOKALIKE_{name.upper()}": value for name, value in settings.items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _await(f"http://localhost:{port}/_stcore/health")
        yield f"http://localhost:{port}"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(300)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium; without it these tests are skipped, but not in CI."""
    if not CHROMIUM.exists():
        reason = f"no browser at {CHROMIUM}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@contextmanager
def tab(browser: Browser, address: str, *, width: int = 1400) -> Iterator[Page]:
    """A new tab of this width that shows the rendered page of this URL."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.set_default_timeout(SOON_MS)
    try:
        page.goto(address)
        expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=SOON_MS)
        yield page
    finally:
        page.close()


def _await(address: str) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            urlopen(address, timeout=300).close()
            return
        except (URLError, TimeoutError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)
