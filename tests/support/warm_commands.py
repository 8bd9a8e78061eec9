"""A `lookalike` command that starts in milliseconds: a server with all modules imported forks.

Each command runs in a separate process with the arguments, environment, folder and standard streams
of the caller. Only the imports and the weights of the embedded encoder are shared: use it to test
what a command does, not how it starts.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from support.paths import REPO

PRELOADED = (
    "app.bootstrap", "app.cli.backup", "app.cli.calibrate", "app.cli.check", "app.cli.database",
    "app.cli.duplicates", "app.cli.evaluate", "app.cli.index", "app.cli.ingest", "app.cli.model",
    "app.cli.search_answer", "app.cli.status", "app.cli.tune", "app.cli.undo",
    "app.encoders.efficientnet_pair", "app.operations.migrate", "alembic.command", "faiss",
    "openvino", "torch",
)  # fmt: skip

CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(call)
    sys.exit(server.recv(1)[0])
"""


@pytest.fixture(scope="session")
def warm_folder() -> Iterator[Path]:
    """The folder of a `lookalike` for all tests of this process; it may be put on PATH."""
    with (
        tempfile.TemporaryDirectory(prefix="lookalike-commands-") as folder,
        warm_lookalike(Path(folder)) as commands,
    ):
        yield commands


@contextmanager
def warm_lookalike(folder: Path) -> Iterator[Path]:
    """A folder for PATH whose `lookalike` is served by a process that this starts and ends."""
    address = folder / "commands.sock"
    client = folder / "lookalike"
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    paths = os.pathsep.join([str(REPO), str(REPO / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-m", "support.warm_commands", str(address)],
        env=os.environ | {"PYTHONPATH": paths}, cwd=REPO, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield folder
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def serve(address: str) -> None:
    """Run commands until the process is terminated."""
    for module in PRELOADED:
        __import__(module)
    _keep_weights()
    gc.freeze()  # a collection in a command would copy the memory that all of them share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection)
            connection.close()


def _keep_weights() -> None:
    """Read the weights of the embedded encoder once; each command has its own copy of them."""
    from app.encoders import efficientnet_pair

    efficientnet_pair.published_networks = cache(efficientnet_pair.published_networks)
    efficientnet_pair.published_networks()


def _answer(connection: socket.socket) -> None:
    """Run one command in a child process and send its exit code; ends this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as file:
        arguments, environment, folder = json.loads(file.read(int.from_bytes(length, "big")))
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        _run(arguments)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def _run(arguments: list[str]) -> None:
    """`lookalike ARGUMENTS`, and the end of the process."""
    from app.cli import main

    sys.argv = ["lookalike", *arguments]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
