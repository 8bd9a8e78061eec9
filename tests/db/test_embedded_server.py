"""The embedded server: one per home, shared, private, and there again after any accident."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from app.config import Settings
from app.db.embedded import binaries, os_user
from app.db.embedded import server as embedded_server
from app.db.engine import database_url
from app.errors import DatabaseUnavailable, DatabaseUnsuitable
from support.paths import REPO

LOOKALIKE = str(Path(sys.executable).with_name("lookalike"))
HASTY = {"fsync": "off"}  # what a killed process wrote is kept by the system all the same
START = f"""
from app import config
from app.db.embedded import server as embedded_server
home = config.Settings().home
print("at it", flush=True)
print(embedded_server.start(home, {HASTY}), flush=True)
"""
STOP = """
from app import config
from app.db.embedded import server as embedded_server
embedded_server.stop(config.Settings().home)
"""
STRANGER = "nobody"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for one server, in a folder that pytest does not close to other users meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="lookalike-home-"))
    yield folder / "home"
    embedded_server.stop(folder / "home")
    shutil.rmtree(folder)


def environment(home: Path, **more: str) -> dict[str, str]:
    return os.environ | {"LOOKALIKE_HOME": str(home)} | more


def begin(home: Path, code: str = START, **more: Any) -> subprocess.Popen[str]:
    """Another process that starts the server of `home`, leading a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPO,
        env=environment(home, **more.pop("environment", {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **more,
    )


def start(home: Path) -> str:
    return embedded_server.start(home, HASTY)


def finish(process: subprocess.Popen[str]) -> str:
    """The last line that the process printed."""
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    return said.splitlines()[-1]


def lookalike(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LOOKALIKE, *words], env=environment(home), capture_output=True, text=True, timeout=300
    )


def answer(url: str, question: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question).fetchone()
    return row and row[0]


def began(url: str) -> Any:
    return answer(url, "SELECT pg_postmaster_start_time()")


def postmaster(home: Path) -> psutil.Process:
    pid_file = home / "postgres" / "postmaster.pid"
    return psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))


def kill(home: Path) -> None:
    server = postmaster(home)
    server.kill()
    server.wait(300)


def socket_folder(home: Path) -> Path:
    """Where clients look for the server, as its URL says."""
    return Path(psycopg.conninfo.conninfo_to_dict(embedded_server.url(home))["host"])


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="session")
def stranger() -> dict[str, Any]:
    """What lets `subprocess` run as an ordinary user who can reach this Python, or a skip."""
    lent: dict[str, Any] = {"user": STRANGER, "group": pwd.getpwnam(STRANGER).pw_gid}
    lent["extra_groups"] = []
    try:
        probe = subprocess.run([sys.executable, "-c", "import app.db.engine"], cwd=REPO, **lent)
    except PermissionError:
        pytest.skip(f"the user {STRANGER} cannot reach {sys.executable}")
    if probe.returncode:
        pytest.skip(f"the user {STRANGER} cannot import app")
    return lent


def test_without_a_url_a_server_starts_in_the_home(home: Path) -> None:
    url = database_url(Settings(home=home))
    assert Path(answer(url, "SHOW data_directory")) == home / "postgres"


def test_processes_share_one_server(home: Path) -> None:
    urls = [finish(begin(home)), finish(begin(home))]
    assert began(urls[0]) == began(urls[1])


def test_processes_that_start_at_the_same_moment_get_one_server(home: Path) -> None:
    urls = [finish(process) for process in [begin(home) for _ in range(3)]]
    assert len({(url, began(url)) for url in urls}) == 1


@as_root
def test_as_root_the_server_runs_as_a_user_of_its_own(home: Path) -> None:
    start(home)
    assert postmaster(home).username() == os_user.SERVER_USER


@as_root
def test_an_ordinary_user_runs_the_server_as_himself(home: Path, stranger: dict[str, Any]) -> None:
    shutil.chown(home.parent, STRANGER)
    try:
        finish(begin(home, **stranger))
        assert postmaster(home).username() == STRANGER
    finally:
        begin(home, STOP, **stranger).communicate(timeout=300)


@as_root
def test_an_ordinary_user_learns_that_a_home_is_not_his(
    home: Path, stranger: dict[str, Any]
) -> None:
    home.parent.chmod(0o755)
    said = begin(home, **stranger).communicate(timeout=300)[0]
    assert "DatabaseUnavailable" in said and "LOOKALIKE_HOME" in said


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_server_outlives_the_command_that_started_it(home: Path, blow: signal.Signals) -> None:
    command = begin(home, f"{START}\nimport time; time.sleep(60)")
    assert command.stdout is not None
    url = [command.stdout.readline() for _ in range(2)][-1].strip()
    before = began(url)
    os.killpg(command.pid, blow)
    command.communicate(timeout=300)
    assert began(url) == before


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.55])
def test_a_start_that_was_killed_half_way_is_made_good_by_the_next(
    home: Path, after_s: float
) -> None:
    command = begin(home)
    assert command.stdout is not None
    command.stdout.readline()
    time.sleep(after_s)
    os.killpg(command.pid, signal.SIGKILL)
    command.communicate(timeout=300)
    assert answer(start(home), "SELECT 1") == 1


def test_the_command_stops_the_server_and_says_so(home: Path) -> None:
    start(home)
    said = lookalike(home, "db", "stop").stderr
    assert ("was stopped" in said, embedded_server.running(home)) == (True, False)


def test_stopping_a_server_that_does_not_run_says_so(home: Path) -> None:
    stopped = lookalike(home, "db", "stop")
    assert (stopped.returncode, "was not running" in stopped.stderr) == (0, True)


def test_psql_accepts_the_url_that_the_command_prints(home: Path) -> None:
    url = lookalike(home, "db", "url").stdout.strip()
    psql = [binaries.binary("psql"), "-XAt", url, "-c", "SELECT current_database()"]
    assert subprocess.run(psql, capture_output=True, text=True).stdout.strip() == "lookalike"


@pytest.mark.parametrize(
    "name", ["with spaces", "it's, here", "Büro 猫", "x" * 120, "deep/" * 40], ids=lambda s: s[:9]
)
def test_any_usual_path_can_be_home(home: Path, name: str) -> None:
    odd = home / name
    try:
        url = start(odd)
        assert Path(answer(url, "SHOW data_directory")) == odd / "postgres"
    finally:
        embedded_server.stop(odd)
        shutil.rmtree(socket_folder(odd), ignore_errors=True)


def test_a_path_that_a_shell_would_change_is_refused(home: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"'\$' in its path.*LOOKALIKE_HOME"):
        start(home / "$HOME")


def test_a_link_to_the_home_leads_to_the_same_server(home: Path) -> None:
    url = start(home)
    link = home.parent / "link"
    link.symlink_to(home)
    assert start(link) == url


@pytest.fixture
def far_home(home: Path) -> Iterator[Path]:
    """A home whose path is too long for a socket, which therefore is elsewhere."""
    far = home / ("x" * 120)
    yield far
    embedded_server.stop(far)
    shutil.rmtree(socket_folder(far), ignore_errors=True)


def test_a_socket_elsewhere_is_in_a_private_folder(far_home: Path) -> None:
    start(far_home)
    folder = socket_folder(far_home)
    assert (folder.is_relative_to(far_home), permissions(folder)) == (False, 0o700)


@as_root
def test_another_user_cannot_reach_a_socket_elsewhere(
    far_home: Path, stranger: dict[str, Any]
) -> None:
    url = start(far_home)
    psql = [binaries.binary("psql"), "-Xc", "SELECT 1", url]
    tried = subprocess.run(psql, cwd="/", capture_output=True, text=True, **stranger)
    assert "Permission denied" in tried.stderr


def test_a_socket_folder_that_others_may_enter_is_refused(far_home: Path) -> None:
    socket_folder(far_home).mkdir(mode=0o755)
    with pytest.raises(DatabaseUnavailable, match="not private"):
        start(far_home)


@as_root
def test_root_takes_no_socket_folder_that_somebody_else_made(far_home: Path) -> None:
    folder = socket_folder(far_home)
    folder.mkdir(mode=0o700)
    shutil.chown(folder, STRANGER)
    with pytest.raises(DatabaseUnavailable, match="not private"):
        start(far_home)
    assert folder.owner() == STRANGER


def test_a_socket_folder_that_is_a_link_is_refused(far_home: Path, tmp_path: Path) -> None:
    socket_folder(far_home).symlink_to(tmp_path)
    try:
        with pytest.raises(DatabaseUnavailable, match="not private"):
            start(far_home)
    finally:
        socket_folder(far_home).unlink()


def test_all_agree_on_the_socket_whatever_their_temporary_folder(
    far_home: Path, tmp_path: Path
) -> None:
    url = finish(begin(far_home, environment={"TMPDIR": str(tmp_path)}))
    assert start(far_home) == url


def test_variables_meant_for_another_server_change_nothing(home: Path) -> None:
    theirs = {"PGPORT": "6543", "PGDATA": "/nowhere", "PGDATABASE": "theirs", "PGUSER": "them"}
    url = finish(begin(home, environment=theirs))
    assert answer(url, "SELECT current_database()") == "lookalike"


def test_a_killed_server_comes_back_with_all_that_was_committed(home: Path) -> None:
    with psycopg.connect(start(home)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    kill(home)
    assert answer(start(home), "SELECT one FROM kept") == 1


@pytest.fixture
def bystander(home: Path) -> Iterator[Callable[[], int]]:
    """Makes an unrelated process of the user PostgreSQL runs as; gives its pid."""
    made: list[subprocess.Popen[bytes]] = []

    def make() -> int:
        user = (home / "postgres").stat().st_uid
        lent = {"user": user} if os.geteuid() == 0 else {}
        made.append(subprocess.Popen(["sleep", "60"], cwd="/", **lent))  # type: ignore[call-overload]
        return made[-1].pid

    yield make
    for process in made:
        process.kill()
        process.wait()


def test_a_killed_server_comes_back_though_its_pid_is_now_somebody_elses(
    home: Path, bystander: Callable[[], int]
) -> None:
    start(home)
    kill(home)
    pid_file = home / "postgres" / "postmaster.pid"
    rest = pid_file.read_text().split("\n", 1)[1]
    pid_file.write_text(f"{bystander()}\n{rest}")
    assert answer(start(home), "SELECT 1") == 1


def test_a_pid_that_is_somebody_elses_is_no_running_server(
    home: Path, bystander: Callable[[], int]
) -> None:
    start(home)
    kill(home)
    (home / "postgres" / "postmaster.pid").write_text(f"{bystander()}\n")
    assert not embedded_server.stop(home)


def test_a_server_that_died_while_writing_its_pid_comes_back(home: Path) -> None:
    start(home)
    embedded_server.stop(home)
    (home / "postgres" / "postmaster.pid").touch(mode=0o600)
    assert answer(start(home), "SELECT 1") == 1


def test_a_half_made_cluster_is_made_anew(home: Path) -> None:
    half = home / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    assert answer(start(home), "SELECT 1") == 1


@pytest.mark.parametrize("version", ["16", None])
def test_data_of_something_else_is_left_alone(home: Path, version: str | None) -> None:
    data = home / "postgres"
    data.mkdir(parents=True)
    if version:
        (data / "PG_VERSION").write_text(f"{version}\n")
    expected = rf"not the data of PostgreSQL 18 \(found: {version or 'none'}\).*LOOKALIKE_HOME"
    with pytest.raises(DatabaseUnsuitable, match=expected):
        start(home)


@as_root
def test_root_does_not_take_over_what_a_user_filled(home: Path) -> None:
    start(home)
    embedded_server.stop(home)
    shutil.chown(home / "postgres", STRANGER)
    with pytest.raises(DatabaseUnavailable, match=f"belongs to the user {STRANGER}"):
        start(home)


def test_a_home_that_cannot_be_made_is_named_with_its_setting(home: Path) -> None:
    home.touch()
    with pytest.raises(DatabaseUnavailable, match=f"{home}/below.*LOOKALIKE_HOME"):
        start(home / "below")


def test_a_home_that_is_a_link_to_itself_is_named_with_its_setting(home: Path) -> None:
    home.symlink_to(home.name)
    with pytest.raises(DatabaseUnavailable, match=f"{home}.*LOOKALIKE_HOME"):
        start(home)
    home.unlink()


def test_nobody_else_may_look_into_the_data(home: Path) -> None:
    start(home)
    assert permissions(home / "postgres") == 0o700


def test_others_may_at_most_pass_through_the_folders_above(home: Path) -> None:
    home.mkdir(mode=0o700)
    start(home)
    allowed = 0o701 if os.geteuid() == 0 else 0o700
    assert (permissions(home), permissions(home.parent)) == (allowed, allowed)


@pytest.mark.parametrize("locale", ["tr_TR.UTF-8", "C", "de_DE.ISO-8859-1"])
def test_the_locale_is_the_same_whatever_the_environment_says(home: Path, locale: str) -> None:
    url = finish(begin(home, environment={"LC_ALL": locale, "LANG": locale}))
    question = (
        "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'lookalike'"
    )
    assert answer(url, question) == "bC.UTF-8"
