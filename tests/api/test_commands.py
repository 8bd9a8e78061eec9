"""`lookalike api` and `lookalike key`."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.api.server import ApiServer
from app.bootstrap import App
from app.cli import cli
from app.errors import LookalikeError, SchemaMismatch
from support.shop import add, numbered

SLOW_END = """
import sys
from app.cli import main

class Library:
    def __del__(self): print("taken down", file=sys.stderr)

library = Library()
main()
"""
"""A command in a process that tells when the interpreter is taken down."""


def run(app: App, *words: str) -> Result:
    settings = {
        "LOOKALIKE_DATABASE_URL": str(app.settings.database_url),
        "LOOKALIKE_HOME": str(app.settings.home),
    }
    return CliRunner().invoke(cli, words, env=settings)


def test_a_key_is_created_listed_and_revoked(app: App) -> None:
    words = ("--scope", "search", "--name", "shop", "--rate", "5/s", "--expires", "30d")
    created = run(app, "key", "create", *words, "--origin", "https://shop.example")
    assert created.exit_code == 0 and "cannot be shown again" in created.stderr
    key = created.stdout.strip()
    assert re.fullmatch(r"lk_[a-z2-7]{12}_[\w-]{43}", key)
    shown = run(app, "key", "list").stdout
    assert all(part in shown for part in ("shop", "usable", "5/s", "https://shop.example"))
    assert key[-43:] not in shown
    id_ = key.split("_")[1]
    assert run(app, "key", "revoke", id_).exit_code == 0
    [listed] = json.loads(run(app, "key", "list", "--json").stdout)
    assert (listed["id"], listed["state"]) == (id_, "revoked")


def test_a_key_as_json_is_alone_on_standard_output(app: App) -> None:
    created = json.loads(run(app, "key", "create", "--scope", "write", "--json").stdout)
    key = app.api_keys.authenticate(created["key"])
    assert key is not None and (key.id, key.scope) == (created["id"], created["scope"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_address_in_use_is_an_error_that_says_what_to_do(app: App) -> None:
    with ApiServer(app, "127.0.0.1", 0) as server:
        port = server.address.rpartition(":")[2]
        with pytest.raises(LookalikeError, match=f"port {port}. Choose another with --host and"):
            ApiServer(app, "127.0.0.1", int(port))
    gc.collect()  # uvicorn leaves the socket open that it could not bind


def test_a_database_without_tables_ends_the_command(empty_url: str, tmp_path: Path) -> None:
    settings = {"LOOKALIKE_DATABASE_URL": empty_url, "LOOKALIKE_HOME": str(tmp_path)}
    result = CliRunner().invoke(cli, ["api", "--port", "0"], env=settings)
    assert isinstance(result.exception, SchemaMismatch)


def test_the_command_serves_until_it_is_interrupted(app: App, tmp_path: Path) -> None:
    add(app, numbered(2))
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_END, "api", "--port", "0"],
        env=os.environ | {
            "LOOKALIKE_DATABASE_URL": str(app.settings.database_url),
            "LOOKALIKE_HOME": str(tmp_path),
        },
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        told = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", told)
        assert address, told
        with urllib.request.urlopen(f"{address[0]}/healthz", timeout=300) as answer:
            assert json.load(answer) == {"status": "ok"}
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        process.stderr.close()
        assert process.wait(300) == 0
    assert rest == ""  # nothing was taken down


def test_a_server_ends_without_taking_the_interpreter_down(tmp_path: Path) -> None:
    """The one that follows on its port waits for that. What was printed is written all the same,
    and what is registered for the end is done."""
    program = """
import atexit, sys
from app.cli.ending import AtOnce, end
class Slow:
    def __del__(self): print("taken down")
slow = Slow()
atexit.register(print, "registered")
print("printed")
end(AtOnce() if sys.argv[1:] else 3)
"""
    ended = {}
    for words in ([], ["server"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
        )
        ended[bool(words)] = (done.returncode, done.stdout.split("\n")[:-1], done.stderr)
    assert ended[False] == (3, ["printed", "registered", "taken down"], "")
    assert ended[True] == (0, ["printed", "registered"], "")
