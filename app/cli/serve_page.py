"""`lookalike page`: serve the upload page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from app.config import Settings
from app.ui.css import ACCENT, ACCENT_ON_DARK

PAGE = Path(__file__).resolve().parent.parent / "ui" / "main.py"


def serve(host: str, port: int) -> NoReturn:
    """Become the page's server, so that whoever stops this process stops the page."""
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "theme.light.primaryColor": ACCENT,
        "theme.dark.primaryColor": ACCENT_ON_DARK,
        "server.maxUploadSize": _mebibytes(Settings().max_image_bytes),
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(PAGE), *words])


def _mebibytes(size: int) -> int:
    """Rounded up; a file in between is refused with its reason after it was sent."""
    return -(-size // 2**20)


@click.command()
@click.option("--host", default="localhost", show_default=True, help="Address to listen on.")
@click.option("--port", default=8501, show_default=True, type=click.IntRange(1, 65535))
def page(host: str, port: int) -> None:
    """Serve the upload page until Ctrl-C."""
    serve(host, port)
