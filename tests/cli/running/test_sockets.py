"""Sockets of running processes: none is left, and that of a killed process is removed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.bootstrap import App
from app.cli import running
from app.cli.search_listener import SearchListener
from support.cli_runs import RunPrinted
from support.paths import REPO


@pytest.mark.parametrize("by", ["a command", "a process that starts"])
def test_the_socket_of_a_killed_process_is_passed_over_and_removed(
    own: App, search: RunPrinted, by_itself: list[str], home: Path, by: str
) -> None:
    left = home / running.FOLDER / "1.sock"
    left.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(left))
    if by == "a command":
        search("--sku", "A")
        assert by_itself == ["A"]
    else:
        with SearchListener(own):
            assert len(list(left.parent.iterdir())) == 1
    assert not left.exists()


def test_a_socket_that_does_not_listen_yet_is_not_removed(
    own: App, search: RunPrinted, by_itself: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = socket.socket.listen

    def late(listening: socket.socket) -> None:
        search("--sku", "A")
        listen(listening)

    monkeypatch.setattr(socket.socket, "listen", late)
    with SearchListener(own):
        search("--sku", "A")
    assert by_itself == ["A"]


def test_a_closed_listener_leaves_nothing(
    own: App, search: RunPrinted, by_itself: list[str], home: Path
) -> None:
    with SearchListener(own):
        pass
    assert not list((home / running.FOLDER).iterdir())
    search("--sku", "A")
    assert by_itself == ["A"]


PAGE = """
import runpy, signal, sys
from pathlib import Path
from types import ModuleType
from app.bootstrap import App
from app.cli.search_listener import SearchListener
from app.config import Settings

class Impatient(SearchListener):
    def __exit__(self, *exc):
        signal.raise_signal(signal.SIGTERM)
        super().__exit__(*exc)

def run():
    [listening] = Path(sys.argv[1], "run").glob("*.sock")
    print(listening.name, flush=True)
    signal.raise_signal(signal.SIGTERM)

server, shared = ModuleType("app.ui.server"), ModuleType("app.ui.shared")
server.run, shared.prepare = run, lambda: App(Settings(home=sys.argv[1]))
sys.modules["app.cli.search_listener"].SearchListener = Impatient
sys.modules |= {"app.ui.server": server, "app.ui.shared": shared}
runpy.run_module("app.cli.page_process", run_name="__main__")
"""


def test_a_page_that_sigterm_ends_leaves_no_socket(home: Path) -> None:
    """It ends by the signal all the same, which who started it sees. A second comes meanwhile."""
    page = subprocess.run(
        [sys.executable, "-c", PAGE, str(home)], cwd=REPO, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert page.returncode == -signal.SIGTERM, page.stderr
    assert page.stdout.endswith(".sock\n")
    assert list((home / "run").glob("*.sock")) == []
