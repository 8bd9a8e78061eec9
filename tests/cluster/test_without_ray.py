"""What `--on` says where there is no Ray or nothing that a cluster could reach."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
from click.testing import CliRunner

from app.bootstrap import App
from app.cli import cli
from app.cluster import backfill, job, row_writer, session, tasks
from app.cluster.attempts import CRASHES, Divided, TaskCrashes
from app.cluster.session import (
    QUEUED_PER_SLOT,
    Cluster,
    ClusterLost,
    NotInstalled,
    RayUnavailable,
    connect,
)
from app.config import Settings
from app.errors import BadInput, LookalikeError, ModelNotMaintained, ModelUnavailable
from app.types import Product
from ingest.chunk_writer import RowCounts
from ingest.sources import SourceReject, SourceRow
from support.sources import ingest, write_source


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
def test_an_address_without_a_cluster_is_said_at_once(
    address: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    # Other tests of this process may have a cluster, which would be used.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RayUnavailable, match=reason), connect(address, 1):
        pass


class WorkerCrashed(Exception):
    """The process of a task has ended."""


class NodeDied(Exception):
    """The node of a task is lost."""


class CountedRay:
    """As much of Ray as schedules tasks, which run when they are waited for."""

    def __init__(self, *resources: dict[str, float], alive: int | None = None) -> None:
        self._nodes = [
            {"Alive": alive is None or number < alive, "Resources": each, "NodeID": str(number)}
            for number, each in enumerate(resources)
        ]
        self.exceptions = SimpleNamespace(
            RayTaskError=(), WorkerCrashedError=WorkerCrashed, NodeDiedError=NodeDied,
            LocalRayletDiedError=NodeDied, ObjectLostError=NodeDied, OutOfMemoryError=NodeDied,
        )  # fmt: skip
        self.cancel: Callable[[Any], object] = pytest.fail
        self.options: dict[str, Any] = {}
        self.in_flight = 0
        self.most = 0

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": sum(node["Resources"].get("GPU", 0) for node in self._nodes)}

    def remote(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        self.options = options

        def submit(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            return partial(function, *arguments)

        return lambda function: SimpleNamespace(remote=partial(submit, function))

    def wait(self, running: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        self.in_flight -= 1
        return running[-1:], running[:-1]

    def get(self, task: Callable[[], Any]) -> Any:
        return task()


@pytest.mark.parametrize(
    ("resources", "cpus", "slots", "gpus"),
    [
        ([{"CPU": 8.0}, {"CPU": 3.0}], 2, 5, 0),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 16.0}], 2, 2, 1),
        ([{"CPU": 2.0, "GPU": 4.0}], 2, 1, 1),
    ],
)
def test_tasks_in_flight_are_bounded_by_processors_or_graphics_cards(
    resources: list[dict[str, float]], cpus: int, slots: int, gpus: int
) -> None:
    ray = CountedRay(*resources)
    cluster = Cluster(ray, cpus, pytest.fail)
    assert cluster.slots == slots
    assert sorted(cluster.run(abs, ((-n,) for n in range(100)))) == list(range(100))
    assert ray.options == {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
    assert ray.most == QUEUED_PER_SLOT * slots


def test_it_is_said_that_tasks_wait_for_a_node() -> None:
    told: list[str] = []
    cluster = Cluster(CountedRay({"CPU": 1.0}, alive=0), 2, told.append)
    assert list(cluster.run(abs, [(-1,), (-2,)])) == [1, 2]
    assert told == ["Waiting: no node of the cluster has 2 processors at present."]


class RpcError(Exception):
    """That of gRPC."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionError("disconnected"), ClusterLost),
        (RpcError("UNAVAILABLE"), ClusterLost),
        (ModuleNotFoundError("No module named 'app'"), NotInstalled),
    ],
)
def test_a_cluster_that_is_lost_or_lacks_lookalike_is_said(
    error: Exception, told: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", SimpleNamespace(RpcError=RpcError))
    ray = CountedRay({"CPU": 1.0})
    ray.wait = Mock(side_effect=error)  # type: ignore[method-assign]
    ray.cancel = Mock(side_effect=ConnectionError)
    with pytest.raises(told):
        list(Cluster(ray, 1, pytest.fail).run(abs, [(-1,)]))


class RayTaskError(Exception):
    """That of Ray, with the error of the task."""

    cause = RuntimeError(f"{session.NOT_IMPORTED}. This may be because …")


def test_a_worker_that_lacks_lookalike_is_said() -> None:
    ray = CountedRay({"CPU": 1.0})
    ray.exceptions.RayTaskError = RayTaskError
    ray.get = Mock(side_effect=RayTaskError)  # type: ignore[method-assign]
    with pytest.raises(NotInstalled, match="everywhere"):
        list(Cluster(ray, 1, pytest.fail).run(abs, [(-1,)]))


def test_ray_does_not_keep_the_signal_that_ends_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    before = signal.getsignal(signal.SIGTERM)
    ray = SimpleNamespace(init=lambda *_, **__: signal.signal(signal.SIGTERM, signal.SIG_IGN))
    session.initialise(ray, session.LOCAL)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_dry_run_is_refused_on_a_cluster(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["ingest", str(tmp_path), "--on", "local", "--dry-run"])
    assert result.exit_code == 2 and "leave out --on" in result.output


def test_other_machines_cannot_reach_the_embedded_database(tmp_path: Path) -> None:
    with App(Settings(home=tmp_path)) as app, pytest.raises(BadInput, match="address local"):
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


def test_a_task_says_that_its_model_was_dropped(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path / "in", 2)
    ingest(app, source)
    model = app.lifecycle.add("second")
    described = job.describe(app, "local")
    monkeypatch.setattr(job, "_apps", {described.settings: app})
    embed = partial(tasks.embed_pictures, described, model, [source.parent], 1)
    assert embed(range(1, 2), 1).embedded == 1
    app.lifecycle.drop("second")
    with pytest.raises(ModelNotMaintained, match="second"):
        embed(range(2, 3), 1)


def test_a_task_that_cannot_begin_leaves_no_folder_of_downloads(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    described = job.describe(app, "local")
    monkeypatch.setattr(job, "_apps", {described.settings: app})
    monkeypatch.setattr(app.encoders, "for_model", Mock(side_effect=ModelUnavailable))
    with pytest.raises(ModelUnavailable):
        tasks.write_rows(described, 1, None, 1, None, [])
    assert list((tmp_path / "temporary").iterdir()) == []


def halves(call: tuple[list[int]]) -> Divided[list[int]]:
    """Of a list of numbers; a number alone is refused: it comes back negative."""
    [numbers] = call
    if half := len(numbers) // 2:
        return Divided([(numbers[:half],), (numbers[half:],)])
    return Divided(result=[-numbers[0]])


def test_the_one_row_that_ends_its_process_is_found_and_refused() -> None:
    crashed: list[int] = []

    def write(numbers: list[int]) -> list[int]:
        if 7 in numbers:
            crashed.append(len(numbers))
            raise WorkerCrashed
        return numbers

    calls = [([*range(begin, begin + 16)],) for begin in (1, 17)]
    results = Cluster(CountedRay({"CPU": 1.0}), 1, pytest.fail).run(write, calls, halves)
    assert sorted(each for result in results for each in result) == [
        -7,
        *range(1, 7),
        *range(8, 33),
    ]
    assert crashed == [16] * CRASHES + [8, 4, 2] + [1] * CRASHES


def test_a_task_that_cannot_be_divided_is_not_tried_without_end() -> None:
    def write(number: int) -> int:
        raise WorkerCrashed

    with pytest.raises(TaskCrashes, match=f"{CRASHES} times"):
        list(Cluster(CountedRay({"CPU": 1.0}), 1, pytest.fail).run(write, [(1,)]))


@pytest.mark.parametrize("seen_as", [NodeDied, WorkerCrashed])
def test_a_lost_node_is_no_crash(seen_as: type[Exception]) -> None:
    """Also where its process was seen to end first."""
    ray = CountedRay(*[{"CPU": 1.0}] * 10)
    left = ray.nodes()[1:]

    def write(numbers: list[int]) -> list[int]:
        if left:
            left.pop()["Alive"] = False
            raise seen_as
        return numbers

    cluster = Cluster(ray, 1, pytest.fail)
    assert list(cluster.run(write, [([1, 2],)], halves)) == [[1, 2]]


def test_a_row_that_ends_its_process_is_a_reject() -> None:
    rows = [SourceRow(3, Product("A"), ("a.jpg", "b.jpg")), SourceReject(4, "B", "no title")]
    first, second = row_writer.divided(("job", rows)).calls
    assert (first, second) == (("job", rows[:1]), ("job", rows[1:]))
    for call, line, sku, pictures in ((first, 3, "A", 2), (second, 4, "B", 0)):
        refused = row_writer.divided(call).result
        assert refused is not None
        assert refused.counts == RowCounts(read=1, rejected=1, images_rejected=pictures)
        assert refused.rejects == [SourceReject(line, sku, row_writer.CRASHED)]


def test_a_picture_that_ends_its_process_counts_as_failed(
    app: App, tmp_path: Path, sql: psycopg.Connection
) -> None:
    ingest(app, write_source(tmp_path / "in", 4))
    sql.execute("DELETE FROM embedding WHERE picture_id > 1")
    sql.commit()
    call = ("job", app.catalog.model(), [], 1, range(1, 100), 4)
    first, second = backfill.divided(app.engine, call).calls
    assert [each[4:] for each in (first, second)] == [(range(1, 3), 1), (range(3, 100), 2)]
    failed = backfill.divided(app.engine, first).result
    assert failed is not None and (failed.embedded, failed.settled, failed.failed) == (0, 0, 1)
    assert backfill.CRASHED in failed.reasons[0]
    nothing = backfill.divided(app.engine, (*call[:4], range(1, 2), 1)).result
    assert nothing is not None and nothing.failed == 0
