"""schemathesis against the API: `make fuzz-api` for long, test_fuzz.py for a moment.

It generates requests from the OpenAPI document, right and wrong ones, alone and in sequences, and
checks each answer against the document: status, type, schema, headers, no error of the server.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from ingest.demo import draw_catalogue
from ingest.load import load
from support.api_client import api_served

FILES = [Path(__file__).with_name(name) for name in ("schemathesis.toml", "schemathesis_hooks.py")]


def fuzz(url: str, key: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis with all checks against a served API."""
    command = [
        str(Path(sys.executable).with_name("st")), "--no-color", "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {key}",
        "--checks", "all", "--suppress-health-check", "all", "--warnings", "off", *options,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for file in FILES:  # both are looked for here
            shutil.copy(file, folder)
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def main() -> int:
    """Draw and serve the demo catalogue, and test the API with it for so many seconds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--examples", type=int, default=1000, help="of each operation")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="lookalike-fuzz-"))
    source = draw_catalogue(home / "demo", products=52)
    embedded_server.start(home, {"fsync": "off"})
    try:
        with App(Settings(home=home, model="embedded", events_per_s=1e6)) as app:
            app.initialise()
            load(app.engine, app.catalog, app.encoders, app.limits, source)
            app.indexer.rebuild()
            with api_served(app) as client:
                done = fuzz(
                    client.url, app.api_keys.create("admin"),
                    "--max-examples", str(arguments.examples),
                    "--max-time", str(arguments.seconds), "--continue-on-failure",
                )  # fmt: skip
    finally:
        embedded_server.stop(home)
    print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
