"""The HTTP API against the service called directly: searches a second of concurrent clients.

    python -m bench.api.throughput --rows 20000 --seconds 60

Both search alternately, in processes of their own with the same settings: the service from threads,
the API from connections that stay open. The clients of the API run on the same machine and take
their share of its processors; `client_cpu_ms` is what one request costs them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

from app.bootstrap import App
from app.errors import Busy
from app.search.service import SearchService
from app.types import Query
from bench.data.catalogue import catalogue, generate_vectors
from bench.harness.side_by_side import BenchmarkReport, Measurement, ratio
from bench.search.users import LoadResult, generate_photo, run_load

CLIENTS = 64
PHOTOS = 60
GOAL = 0.9
"""Least throughput over HTTP, as a share of that of the service."""

BOUNDARY = "boundary"

Send = Callable[[HTTPConnection, int], None]


@contextmanager
def served(app: App) -> Iterator[str]:
    """`lookalike api` over the catalogue of an App; yields its address."""
    settings = app.settings
    process = subprocess.Popen(
        [sys.executable, "-c", "from app.cli import main; main()", "api", "--port", "0"],
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
        yield address[0]
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


def request(connection: HTTPConnection, path: str, body: bytes, content_type: str) -> None:
    """Send one search and read its answer. Raises Busy if it was refused as the service does."""
    connection.request("POST", path, body, {"Content-Type": content_type})
    response = connection.getresponse()
    answer = response.read()
    if response.status == 503:
        raise Busy()
    assert response.status == 200, answer[:300]


def run_clients(address: str, send: Send, clients: int, seconds: float) -> LoadResult:
    """Clients that send searches for so many seconds, each over a connection that stays open."""
    connections = threading.local()

    def once(_: SearchService | None, number: int) -> None:
        if not hasattr(connections, "own"):
            connections.own = HTTPConnection(urlsplit(address).netloc, timeout=300)
        send(connections.own, number)

    return run_load(None, once, clients, seconds)  # type: ignore[arg-type]


def photo_form(photo: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    return head.encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()


def measure(app: App, address: str, report: BenchmarkReport, seconds: float, rounds: int) -> None:
    photos = [generate_photo(seed) for seed in range(PHOTOS)]
    forms = [photo_form(photo) for photo in photos]
    vectors, model = generate_vectors(2000, 99), app.catalog.model()
    documents = [
        json.dumps({"vector": vector.tolist(), "model": model.name, "fold": False}).encode()
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
    }
    for kind, (direct, send) in kinds.items():
        results: dict[str, list[LoadResult]] = {"service": [], "http": []}
        for number in range(rounds + 1):
            duration = seconds / rounds if number else 1.0  # round 0 is the warm-up
            pair = {
                "service": run_load(app.search, direct, CLIENTS, duration),
                "http": run_clients(address, send, CLIENTS, duration),
            }
            if number:
                for name, result in pair.items():
                    assert not result.errors, result.errors
                    results[name].append(result)
        add_rows(report, kind, results)


def add_rows(report: BenchmarkReport, kind: str, results: dict[str, list[LoadResult]]) -> None:
    rates = {
        name: Measurement(tuple(each.per_second for each in runs), "/s")
        for name, runs in results.items()
    }
    for name, runs in results.items():
        ms = Measurement(tuple(ms for each in runs for ms in each.ms), "ms")
        cpu = Measurement(tuple(each.cpu_ms for each in runs), "ms")
        report.row(
            search=kind, asked_by=name, clients=CLIENTS, rate=rates[name],
            relative=ratio(rates[name], rates["service"]),
            p50_ms=ms.p50, p99_ms=ms.at(99), refused=sum(each.refused for each in runs),
            client_cpu_ms=cpu if name == "http" else None,
        )  # fmt: skip
    report.goal(f"{kind}: http / service", ratio(rates["http"], rates["service"]), GOAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each kind and side")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report = BenchmarkReport("api", "The HTTP API and the service called directly")
    with catalogue(options.rows) as app:
        app.indexer.rebuild()
        with served(app) as address:
            measure(app, address, report, options.seconds, options.rounds)
    report.note(f"{options.rows:,} products with an index; query photos of one megapixel.")
    report.write()


if __name__ == "__main__":
    main()
