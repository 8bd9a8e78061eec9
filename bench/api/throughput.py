"""The HTTP API against the service called directly: searches a second of concurrent clients.

    python -m bench.api.throughput --rows 20000 --seconds 60

All search alternately, in processes of their own with the same settings: the service from threads
of one process, the API, with one process and with two, from connections that stay open. The clients
of the API run on the same machine and take their share of its processors; `client_cpu_ms` is what
one request costs them. `cpu_ms` is the processor time of the searching processes for one search,
without their clients and without PostgreSQL: it is the same on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

import psutil

from app.bootstrap import App
from app.errors import Busy
from app.search.service import SearchService
from app.types import Query
from bench.data.catalogue import catalogue
from bench.data.vectors import generate_vectors
from bench.harness.side_by_side import BenchmarkReport, Measurement, ratio
from bench.search.users import LoadResult, generate_photo, run_load

CLIENTS = 64
PHOTOS = 60
GOAL = 0.9
"""Least throughput over HTTP, as a share of that of the service."""

P99_BOUND = 4.0
"""99 of 100 answers come within this multiple of the mean time, which is clients / throughput."""

RECALL_GOAL = "0.9"
"""Generated vectors are harder to nominate than pictures; what is measured here is not recall."""

KINDS = ("photo", "vector", "vector in base64")
SERVICE = "service"

BOUNDARY = "boundary"

Send = Callable[[HTTPConnection, int], None]


@dataclass(frozen=True)
class Server:
    """`lookalike api` with one process or several."""

    address: str
    pid: int

    def cpu_s(self) -> float:
        """Processor seconds that its processes have used, of all their threads."""
        own = psutil.Process(self.pid)
        times = [each.cpu_times() for each in (own, *own.children())]
        return float(sum(each.user + each.system for each in times))


@contextmanager
def served(app: App, processes: int) -> Iterator[Server]:
    """`lookalike api` over the catalogue of an App."""
    settings, command = app.settings, ["api", "--port", "0", "--processes", str(processes)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from app.cli import main; main()", *command],
        env=os.environ | {
            "LOOKALIKE_DATABASE_URL": str(settings.database_url or ""),
            "LOOKALIKE_HOME": str(settings.home),
            "LOOKALIKE_INDEX_DIR": str(settings.index_folder),
            "LOOKALIKE_SEARCH_WAIT_S": str(settings.search_wait_s),
        },
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        told = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", told)
        assert address, told
        yield Server(address[0], process.pid)
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


@dataclass(frozen=True)
class HttpResult:
    """Load over HTTP, and the milliseconds of processor time of the server for one request."""

    load: LoadResult
    server_cpu_ms: float


def request(connection: HTTPConnection, path: str, body: bytes, content_type: str) -> None:
    """Send one search and read its answer. Raises Busy if it was refused as the service does."""
    connection.request("POST", path, body, {"Content-Type": content_type})
    response = connection.getresponse()
    answer = response.read()
    if response.status == 503:
        raise Busy()
    assert response.status == 200, answer[:300]


def run_clients(server: Server, send: Send, clients: int, seconds: float) -> HttpResult:
    """Clients that send searches for so many seconds, each over a connection that stays open."""
    address, before = server.address, server.cpu_s()
    connections = threading.local()

    def once(_: SearchService | None, number: int) -> None:
        if not hasattr(connections, "own"):
            connections.own = HTTPConnection(urlsplit(address).netloc, timeout=300)
        send(connections.own, number)

    load = run_load(None, once, clients, seconds)  # type: ignore[arg-type]
    return HttpResult(load, 1000 * (server.cpu_s() - before) / max(1, len(load.ms)))


def photo_form(photo: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    return head.encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()


def measure(
    app: App, servers: Mapping[str, Server], report: BenchmarkReport, seconds: float, rounds: int,
    wanted: Sequence[str],
) -> None:  # fmt: skip
    photos = [generate_photo(seed) for seed in range(PHOTOS)]
    forms = [photo_form(photo) for photo in photos]
    vectors, model = generate_vectors(2000, 99), app.catalog.model()
    documents = [
        json.dumps({"vector": vector.tolist(), "model": model.name, "fold": False}).encode()
        for vector in vectors
    ]
    packed = [
        json.dumps(
            {"vector": b64encode(vector.tobytes()).decode(), "model": model.name, "fold": False}
        ).encode()
        for vector in vectors
    ]
    multipart = f"multipart/form-data; boundary={BOUNDARY}"
    kinds: dict[str, tuple[Callable[[SearchService, int], object], Send]] = {
        "photo": (
            lambda search, n: search.search(
                Query(picture=photos[n % PHOTOS], untrusted=True, fold=True)
            ),
            lambda connection, n: request(
                connection, "/v1/search/photo", forms[n % PHOTOS], multipart
            ),
        ),
        "vector": (
            lambda search, n: search.search(Query(vector=vectors[n % 2000], model_id=model.id)),
            lambda connection, n: request(
                connection, "/v1/search", documents[n % 2000], "application/json"
            ),
        ),
        "vector in base64": (
            lambda search, n: search.search(Query(vector=vectors[n % 2000], model_id=model.id)),
            lambda connection, n: request(
                connection, "/v1/search", packed[n % 2000], "application/json"
            ),
        ),
    }
    for kind, (direct, send) in kinds.items():
        if kind not in wanted:
            continue
        results: dict[str, list[LoadResult]] = {SERVICE: [], **{name: [] for name in servers}}
        server_ms: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(rounds + 1):
            duration = seconds / rounds if number else 1.0  # round 0 is the warm-up
            taken = {SERVICE: run_load(app.search, direct, CLIENTS, duration)}
            for name, server in servers.items():
                http = run_clients(server, send, CLIENTS, duration)
                taken[name] = http.load
                if number:
                    server_ms[name].append(http.server_cpu_ms)
            if number:
                for name, result in taken.items():
                    assert not result.errors, result.errors
                    results[name].append(result)
        add_rows(report, kind, results, server_ms)


def add_rows(
    report: BenchmarkReport, kind: str, results: dict[str, list[LoadResult]],
    server_ms: dict[str, list[float]],
) -> None:  # fmt: skip
    rates = {
        name: Measurement(tuple(each.per_second for each in runs), "/s")
        for name, runs in results.items()
    }
    for name, runs in results.items():
        ms = Measurement(tuple(ms for each in runs for ms in each.ms), "ms")
        cpu = Measurement(tuple(each.cpu_ms for each in runs), "ms")
        report.row(
            search=kind, asked_by=name, clients=CLIENTS, rate=rates[name],
            relative=ratio(rates[name], rates[SERVICE]),
            p50_ms=ms.p50, p99_ms=ms.at(99), refused=sum(each.refused for each in runs),
            cpu_ms=cpu if name == SERVICE else Measurement(tuple(server_ms[name]), "ms"),
            client_cpu_ms=None if name == SERVICE else cpu,
        )  # fmt: skip
        if name != SERVICE:
            mean_ms = 1000 * CLIENTS / rates[name].p50
            p99 = ms.at(99) / mean_ms
            report.goal(f"{kind}, {name}: p99 / mean", p99, P99_BOUND, at_least=False)
            report.goal(f"{kind}, {name} / service", ratio(rates[name], rates[SERVICE]), GOAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each kind and side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument(
        "--processes", type=int, nargs="+", default=(1, 2), help="of the API, each number in turn"
    )
    options = parser.parse_args()
    report = BenchmarkReport("api", "The HTTP API and the service called directly")
    os.environ.setdefault("LOOKALIKE_RECALL_GOAL", RECALL_GOAL)
    with catalogue(options.rows) as app:
        build = app.indexer.rebuild()
        assert build.state == "published", build.reason
        with ExitStack() as stack:
            servers = {
                f"http, {count}": stack.enter_context(served(app, count))
                for count in options.processes
            }
            measure(app, servers, report, options.seconds, options.rounds, options.kinds)
    report.note(f"{options.rows:,} products with an index; query photos of one megapixel.")
    report.write()


if __name__ == "__main__":
    main()
