"""Generated requests, right and wrong ones: a short run of schemathesis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from api.conftest import fill
from api.fuzz import fuzz
from app.bootstrap import App
from app.config import Settings
from support.api_client import api_served
from support.colours import choose_colours


def test_generated_requests_find_no_error(
    filled_database: Callable[..., str], tmp_path: Path
) -> None:
    settings = Settings(
        home=tmp_path, database_url=filled_database(fill), api_body_s=1.0, events_per_s=1e6
    )
    with App(settings, choose=choose_colours) as app, api_served(app) as client:
        key = app.api_keys.create("admin")
        done = fuzz(client.url, key, "--max-examples", "2", "--seed", "1", "--no-shrink")
    assert done.returncode == 0, done.stdout + done.stderr
