"""The services of docker-compose.yml as plain processes, on a server that requires passwords.

The commands, their order and their environments are those of the file. Those that end are run
by support.warm_commands, the worker and the page in processes of their own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import psycopg
import pytest
import yaml

from support.colours import photo
from support.paths import REPO
from support.servers import TcpServer, free_port, password_server
from support.sources import write_source

pytestmark = pytest.mark.xdist_group(
    "commands"
)  # these tests share the process that serves commands

SECRETS = {name: f"s3cret'{name} @%/:" for name in (
    "postgres_password", "migrator_password", "server_password"
)}  # fmt: skip
"""The files of the folder of secrets, and what they hold."""
LOOKALIKE = [sys.executable, "-c", "from app.cli import main; main()"]
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@dataclass(frozen=True)
class Deployment:
    """The services of the file on this machine; `places` maps addresses and paths to local ones."""

    services: dict[str, dict[str, Any]]
    places: dict[str, str]
    folder: Path
    commands: Path

    def command(self, name: str) -> list[str]:
        service = self.services[name]
        words = [self._here(word) for word in service["command"]]
        if "entrypoint" not in service:
            return ["lookalike", *words]
        return [self._here(word) for word in service["entrypoint"]]

    def environment(self, name: str) -> dict[str, str]:
        given = {
            key: self._here(str(value)) for key, value in self.services[name]["environment"].items()
        }
        return os.environ | given | {
            "PATH": f"{self.commands}{os.pathsep}{os.environ['PATH']}",
            "LOOKALIKE_HOME": str(self.folder / "home"), "PYTHONPATH": str(REPO),
            "LOOKALIKE_MODEL": "embedded", "LOOKALIKE_WORKER_POLL_S": "0.5",
            "LOOKALIKE_WORKER_METRICS_PORT": self.places["9464"],
            "LOOKALIKE_PAGE_METRICS_PORT": self.places["9465"],
        }  # fmt: skip

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(name), cwd=self.folder, env=self.environment(name),
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        return done

    @contextmanager
    def running(self, name: str, *more: str) -> Iterator[psutil.Process]:
        process = psutil.Popen(
            [*LOOKALIKE, *self.command(name)[1:], *more], cwd=self.folder,
            env=self.environment(name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(300)

    def _here(self, text: str) -> str:
        filled = VARIABLE.sub(lambda match: match[3] if match[2] == "-" else "", text).replace(
            "$$", "$"
        )
        for there, here in self.places.items():
            filled = filled.replace(there, here)
        return filled


@pytest.fixture(scope="module")
def tcp() -> Iterator[TcpServer]:
    with password_server() as server, psycopg.connect(server.url(), autocommit=True) as admin:
        secret = psycopg.sql.Literal(SECRETS["postgres_password"]).as_string(admin)
        admin.execute(f"CREATE ROLE lookalike SUPERUSER LOGIN PASSWORD {secret}")
        admin.execute("CREATE DATABASE lookalike OWNER lookalike TEMPLATE template0")
        yield server


@pytest.fixture(scope="module")
def deployment(
    tcp: TcpServer, tmp_path_factory: pytest.TempPathFactory, warm_folder: Path
) -> Deployment:
    """A deployment with roles and tables created and a catalogue loaded."""
    folder = tmp_path_factory.mktemp("deployment")
    (folder / "backups").mkdir()
    (folder / "secrets").mkdir()
    for name, password in SECRETS.items():
        (folder / "secrets" / name).write_text(f"{password}\n", encoding="utf-8")
    places = {
        "@db:5432": f"@127.0.0.1:{tcp.port}",
        "/var/lib/lookalike/index": str(folder / "index"),
        "/catalogue/catalogue.csv": str(folder / "catalogue" / "catalogue.csv"),
        "/run/secrets": str(folder / "secrets"),
        "/backups": str(folder / "backups"),
        "0.0.0.0": "127.0.0.1",
        "9464": str(free_port()),
        "9465": str(free_port()),
    }
    write_source(folder / "catalogue", 12)
    text = (REPO / "docker-compose.yml").read_text(encoding="utf-8")
    deployment = Deployment(yaml.safe_load(text)["services"], places, folder, warm_folder)
    for name in ("roles", "migrate", "ingest"):
        deployment.run(name)
    return deployment


def wait_for_response(url: str, seconds: float = 300) -> bytes:
    """The body of the first response with status 200."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=300) as response:
                return bytes(response.read())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_roles_and_migrate_can_run_again(deployment: Deployment) -> None:
    deployment.run("roles")
    assert "as recorded before" in deployment.run("migrate").stderr


def test_the_worker_builds_is_healthy_and_shows_no_password(deployment: Deployment) -> None:
    with deployment.running("worker") as worker:
        wait_for_response(f"http://127.0.0.1:{deployment.places['9464']}/healthz")
        metrics = f"http://127.0.0.1:{deployment.places['9464']}/metrics"
        deadline = time.monotonic() + 300
        while b"lookalike_index_rows 12.0" not in wait_for_response(metrics):
            assert time.monotonic() < deadline, wait_for_response(metrics).decode()
            time.sleep(0.2)
        words = [word for each in (worker, *worker.children(True)) for word in each.cmdline()]
    assert "s3cret" not in " ".join(words)


def test_the_page_is_healthy_has_metrics_before_a_visitor_and_shows_no_password(
    deployment: Deployment,
) -> None:
    port = free_port()
    with deployment.running("page", "--port", str(port)) as page:
        assert wait_for_response(f"http://127.0.0.1:{port}/_stcore/health") == b"ok"
        metrics = wait_for_response(f"http://127.0.0.1:{deployment.places['9465']}/metrics")
        assert b"lookalike_searches_waiting 0.0" in metrics
        words = [word for each in (page, *page.children(True)) for word in each.cmdline()]
    assert "app.cli.page_process" in " ".join(words) and "s3cret" not in " ".join(words)


def test_the_api_is_healthy_and_answers_nobody_without_a_key(deployment: Deployment) -> None:
    port = free_port()
    with deployment.running("api", "--host", "0.0.0.0", "--port", str(port)):
        assert wait_for_response(f"http://127.0.0.1:{port}/healthz") == b'{"status":"ok"}'
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/facets", timeout=300)
    refused.value.close()
    assert refused.value.code == 401


def test_a_search_in_a_container_finds_a_loaded_product(deployment: Deployment) -> None:
    (deployment.folder / "photo.png").write_bytes(photo(3, side=8))
    done = subprocess.run(
        ["lookalike", "search", "photo.png", "--k", "1", "--json"], cwd=deployment.folder,
        env=deployment.environment("page"), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["matches"][0]["sku"] == "P0003"


def test_each_backup_is_in_a_separate_folder(deployment: Deployment) -> None:
    deployment.run("backup")
    (backup,) = (deployment.folder / "backups").iterdir()
    manifest = (backup / "manifest.json").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d", backup.name)
    assert ("public.product" in manifest, "s3cret" in manifest) == (True, False)
