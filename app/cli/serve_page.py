"""`lookalike page`: serve the web pages with Streamlit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from app.config import Settings
from app.ui.css import ACCENT, ACCENT_ON_DARK
from app.ui.languages import check_language

PAGE = Path(__file__).resolve().parent.parent / "ui" / "page_app.py"
"""The file whose application Streamlit serves."""


def serve(host: str, port: int) -> NoReturn:
    """Replace this process by Streamlit's server, so that a signal to it stops the server."""
    settings = Settings()
    check_language(settings.page_language)
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        # With fast reruns a further change stops the run of the one before it, which may not have
        # begun, or be in its callback: the click is lost.
        "runner.fastReruns": "false",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "theme.light.primaryColor": ACCENT,
        "theme.dark.primaryColor": ACCENT_ON_DARK,
        "server.maxUploadSize": _mebibytes(settings.max_image_bytes),
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    sys.stdout.flush()
    # -P: an `app` in the current folder does not take the place of ours.
    command = [sys.executable, "-P", "-m", "app.cli.page_process", "run", str(PAGE), *arguments]
    os.execv(sys.executable, command)


def _mebibytes(size: int) -> int:
    """Bytes in MiB, rounded up; a file above the exact limit is refused after its upload."""
    return -(-size // 2**20)


@click.command()
@click.option("--host", default="localhost", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8501, show_default=True, type=click.IntRange(1, 65535), help="TCP port."
)
def page(host: str, port: int) -> None:
    """Serve the web pages until Ctrl-C."""
    serve(host, port)
