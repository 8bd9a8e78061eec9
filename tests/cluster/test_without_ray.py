"""What `--on` says where there is no Ray or nothing that a cluster could reach."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.bootstrap import App
from app.cli import cli
from app.cluster import job
from app.cluster.session import RayUnavailable, connect
from app.config import Settings
from app.errors import BadInput, LookalikeError
from support.sources import write_source


@pytest.mark.parametrize("command", [("ingest", "SOURCE"), ("model", "embed", "colours")])
def test_without_ray_the_option_says_what_to_install(
    settings: Settings, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path / "in", 1)
    assert settings.database_url is not None
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", settings.database_url)
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = [str(source) if word == "SOURCE" else word for word in command]
    arguments += ["--on", "local", "--images", str(source.parent)]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, LookalikeError)
    assert str(result.exception) == "This needs Ray: `pip install 'lookalike[ray]'`."


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nonsense", "not the address"),
        ("ray://host:port", "not the address"),
        ("ray://127.0.0.1:1", "Connection refused"),
        ("127.0.0.1:1", "Connection refused"),
    ],
)
def test_an_address_without_a_cluster_is_said_at_once(address: str, reason: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(RayUnavailable, match=reason), connect(address, 1):
        pass


def test_a_dry_run_is_refused_on_a_cluster(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["ingest", str(tmp_path), "--on", "local", "--dry-run"])
    assert result.exit_code == 2 and "leave out --on" in result.output


def test_other_machines_cannot_reach_the_embedded_database(tmp_path: Path) -> None:
    with App(Settings(home=tmp_path)) as app, pytest.raises(BadInput, match="--on local"):
        job.describe(app, "ray://host:10001")


def test_a_worker_takes_what_belongs_to_a_machine_from_its_own_environment(
    app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    described = job.describe(app, "local")
    assert str(app.settings.database_url) in described.settings
    assert str(app.settings.home) not in described.settings.replace(
        str(app.settings.database_url), ""
    )
    assert str(app.settings.database_url) not in repr(described)
    monkeypatch.setattr(job, "_apps", {})
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "worker"))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with described.services() as worker, worker:
        assert worker.settings.home == tmp_path / "worker"
        assert worker.settings.database_url == app.settings.database_url


def test_another_version_is_refused(app: App) -> None:
    described = job.Job(job.describe(app, "local").settings, version="0.0.0")
    with pytest.raises(job.VersionsDiffer, match="install the same version"):
        described.services().__enter__()
