"""Several processes that serve the API on one port."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from app.api.processes import ApiProcesses
from app.api.server import ApiServer
from app.bootstrap import App
from app.cli import cli
from app.config import Settings
from app.errors import LookalikeError, SchemaMismatch
from conftest import Fill
from support.colours import choose_colours
from support.servers import wait_until
from support.shop import add, numbered

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux spreads the connections")

CONNECTIONS = 40
"""So many connections that one of two processes gets all of them once in 10 ** 11 times."""


@dataclass(frozen=True)
class Served:
    """A command that serves with two processes; its error output."""

    process: subprocess.Popen[str]
    address: str

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def get(self, path: str, key: str | None = None) -> tuple[int, str]:
        """Status and body of an answer, on a connection of its own."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        request = urllib.request.Request(self.address + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@contextmanager
def served(database_url: str, home: Path) -> Iterator[Served]:
    """`lookalike api` with two processes; unless a test killed it, Ctrl-C ends all of them."""
    process = subprocess.Popen(
        [
            sys.executable, "-c", "from app.cli import main; main()", "api", "--port", "0",
            "--processes", "2",
        ],
        env=os.environ | {"LOOKALIKE_DATABASE_URL": database_url, "LOOKALIKE_HOME": str(home)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        told = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", told)
        assert address, told
        server = Served(process, address[0])
        yield server
        if process.poll() is None:
            children = server.children()
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            assert process.wait(300) == 0
            assert "Traceback" not in rest and "Interrupted" not in rest
            assert gone(children)()
    finally:
        process.kill()
        process.wait(300)
        process.stderr.close()


def two_products(app: App) -> None:
    add(app, numbered(2))


@pytest.fixture(scope="module")
def url(shared_filled_database: Callable[[Fill], str]) -> str:
    return shared_filled_database(two_products)


@pytest.fixture(scope="module")
def server(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(url, tmp_path_factory.mktemp("processes")) as server:
        yield server


def gone(processes: list[psutil.Process]) -> Callable[[], bool]:
    return lambda: not any(each.is_running() for each in processes)


def test_new_connections_are_spread_over_the_processes(server: Served) -> None:
    with ExitStack() as clients:
        port = int(server.address.rpartition(":")[2])
        for _ in range(CONNECTIONS):
            clients.enter_context(socket.create_connection(("127.0.0.1", port)))

        def connected() -> list[int]:
            return [
                sum(
                    each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
                    for each in child.net_connections("tcp")
                )
                for child in server.children()
            ]

        wait_until(lambda: sum(connected()) == CONNECTIONS, "not all are accepted")
        assert len(connected()) == 2 and min(connected()) > 0


def test_all_processes_tell_the_metrics_of_all_and_know_of_a_revocation_at_once(
    server: Served, url: str, tmp_path: Path
) -> None:
    with App(Settings(home=tmp_path, database_url=url), choose=choose_colours) as app:
        key = app.api_keys.create("admin")
        for _ in range(CONNECTIONS):
            assert server.get("/v1/products/P0001", key)[0] == 200
        route = 'lookalike_api_requests_total{route="/v1/products/{sku}",status="200"}'
        counted = f"{route} {CONNECTIONS:.1f}"

        def told() -> bool:
            return counted in server.get("/metrics", key)[1]

        wait_until(told, "a request is not counted")  # it is counted after its answer was sent
        for _ in range(CONNECTIONS):  # whichever process answers
            metrics = server.get("/metrics", key)[1]
            assert counted in metrics
            assert "lookalike_searches_running 0.0" in metrics
        app.api_keys.revoke(key.split("_")[1])
        for _ in range(CONNECTIONS):
            assert server.get("/v1/products/P0001", key)[0] == 401


def listens(process: psutil.Process) -> bool:
    """Whether a process accepts connections; one that just ended does not."""
    try:
        return any(each.status == psutil.CONN_LISTEN for each in process.net_connections())
    except psutil.NoSuchProcess:
        return False


def test_a_process_that_ends_is_started_again(server: Served) -> None:
    first, second = server.children()
    first.kill()

    def is_replaced() -> bool:
        children = {*server.children()} - {first}  # a killed one is listed until it is reaped
        return children > {second} and all(map(listens, children))

    wait_until(is_replaced, "the process is not started again")
    for _ in range(CONNECTIONS):
        assert json.loads(server.get("/healthz")[1]) == {"status": "ok"}


def test_the_processes_end_when_the_one_that_started_them_is_killed(
    url: str, tmp_path: Path
) -> None:
    with served(url, tmp_path) as server:
        children = server.children()
        server.process.kill()
        wait_until(gone(children), "the processes outlive the command")


def test_an_address_in_use_is_refused_also_if_it_is_shared(app: App) -> None:
    with ApiServer(app, "127.0.0.1", 0, shared=True) as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(LookalikeError, match=f"port {port}. Choose another with --host and"):
            ApiProcesses("127.0.0.1", port, 2)


def test_what_prevents_the_processes_from_starting_ends_the_command(
    empty_url: str, tmp_path: Path
) -> None:
    settings = {"LOOKALIKE_DATABASE_URL": empty_url, "LOOKALIKE_HOME": str(tmp_path)}
    words = ["api", "--port", "0", "--processes", "2"]
    result = CliRunner().invoke(cli, words, env=settings)
    assert isinstance(result.exception, SchemaMismatch)
