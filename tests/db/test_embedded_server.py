"""The embedded server: one per home, shared, private, whoever starts it, wherever the home is."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from app.config import Settings
from app.db.embedded import binaries, os_user
from app.db.embedded import server as embedded_server
from app.db.engine import database_url
from app.errors import DatabaseUnavailable
from support.embedded_servers import (
    OTHER_USER,
    START,
    as_root,
    environment,
    postmaster,
    scalar,
    spawn,
    start,
    start_time,
)
from support.paths import REPO
from support.servers import copy_cluster

LOOKALIKE = str(Path(sys.executable).with_name("lookalike"))

STOP = """
from app import config
from app.db.embedded import server as embedded_server
embedded_server.stop(config.Settings().home)
"""


def finish(process: subprocess.Popen[str]) -> str:
    """The last line that the process printed."""
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output.splitlines()[-1]


def lookalike(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LOOKALIKE, *words], env=environment(home), capture_output=True, text=True, timeout=300
    )


def socket_folder(home: Path) -> Path:
    """The folder of the server's socket, from its URL."""
    return Path(psycopg.conninfo.conninfo_to_dict(embedded_server.url(home))["host"])


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="session")
def other_user() -> dict[str, Any]:
    """Arguments that let `subprocess` run as an ordinary user who can reach this Python; else
    skips."""
    process_options: dict[str, Any] = {"user": OTHER_USER, "group": pwd.getpwnam(OTHER_USER).pw_gid}
    process_options["extra_groups"] = []
    try:
        probe = subprocess.run(
            [sys.executable, "-c", "import app.db.engine"], cwd=REPO, **process_options
        )
    except PermissionError:
        pytest.skip(f"the user {OTHER_USER} cannot reach {sys.executable}")
    if probe.returncode:
        pytest.skip(f"the user {OTHER_USER} cannot import app")
    return process_options


def test_without_a_url_a_server_starts_in_the_home(home: Path) -> None:
    url = database_url(Settings(home=home))
    assert Path(scalar(url, "SHOW data_directory")) == home / "postgres"


def test_processes_share_one_server(used_home: Path) -> None:
    urls = [finish(spawn(used_home)), finish(spawn(used_home))]
    assert start_time(urls[0]) == start_time(urls[1])


def test_processes_that_start_at_the_same_moment_get_one_server(home: Path) -> None:
    urls = [finish(process) for process in [spawn(home) for _ in range(3)]]
    assert len({(url, start_time(url)) for url in urls}) == 1


@as_root
def test_as_root_the_server_runs_as_a_separate_user(home: Path) -> None:
    start(home)
    assert postmaster(home).username() == os_user.SERVER_USER


@as_root
def test_an_ordinary_user_runs_the_server_under_their_own_account(
    home: Path, other_user: dict[str, Any]
) -> None:
    shutil.chown(home.parent, OTHER_USER)
    try:
        finish(spawn(home, **other_user))
        assert postmaster(home).username() == OTHER_USER
    finally:
        spawn(home, STOP, **other_user).communicate(timeout=300)


@as_root
def test_a_home_of_another_user_is_an_error_for_an_ordinary_user(
    home: Path, other_user: dict[str, Any]
) -> None:
    home.parent.chmod(0o755)
    output = spawn(home, **other_user).communicate(timeout=300)[0]
    assert "DatabaseUnavailable" in output and "LOOKALIKE_HOME" in output


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_server_outlives_the_command_that_started_it(
    used_home: Path, blow: signal.Signals
) -> None:
    command = spawn(used_home, f"{START}\nimport time; time.sleep(60)")
    assert command.stdout is not None
    url = [command.stdout.readline() for _ in range(2)][-1].strip()
    before = start_time(url)
    os.killpg(command.pid, blow)
    command.communicate(timeout=300)
    assert start_time(url) == before


def test_a_database_that_another_start_has_just_created_is_taken(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(home)
    monkeypatch.setattr(embedded_server, "EXISTING", "SELECT WHERE %s = ''")
    embedded_server._create_database(home / "postgres")
    assert scalar(embedded_server.url(home), "SELECT 1") == 1


def test_a_server_that_comes_up_meanwhile_is_taken(home: Path) -> None:
    """As one that a killed start has left behind, and that had not written its pid yet."""
    start(home)
    server = psutil.Process(int((home / "postgres/postmaster.pid").read_text().split("\n")[0]))
    embedded_server._launch(home / "postgres", {})
    assert server.is_running() and scalar(embedded_server.url(home), "SELECT 1") == 1


def test_the_stop_command_stops_the_server_and_reports_it(used_home: Path) -> None:
    start(used_home)
    output = lookalike(used_home, "db", "stop").stderr
    assert ("was stopped" in output, embedded_server.running(used_home)) == (True, False)


def test_stopping_a_server_that_does_not_run_reports_it(home: Path) -> None:
    stopped = lookalike(home, "db", "stop")
    assert (stopped.returncode, "was not running" in stopped.stderr) == (0, True)


def test_psql_accepts_the_url_that_the_command_prints(used_home: Path) -> None:
    url = lookalike(used_home, "db", "url").stdout.strip()
    psql = [binaries.binary("psql"), "-XAt", url, "-c", "SELECT current_database()"]
    assert subprocess.run(psql, capture_output=True, text=True).stdout.strip() == "lookalike"


@pytest.mark.parametrize(
    "name", ["with spaces", "it's, here", "Büro 猫", "x" * 120, "deep/" * 40], ids=lambda s: s[:9]
)
def test_any_usual_path_can_be_home(home: Path, name: str) -> None:
    special = home / name
    try:
        url = start(special)
        assert Path(scalar(url, "SHOW data_directory")) == special / "postgres"
    finally:
        embedded_server.stop(special)
        shutil.rmtree(socket_folder(special), ignore_errors=True)


def test_a_path_with_shell_metacharacters_is_refused(home: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"'\$' in its path.*LOOKALIKE_HOME"):
        start(home / "$HOME")


def test_a_symbolic_link_to_the_home_uses_the_same_server(used_home: Path) -> None:
    url = start(used_home)
    link = used_home.parent / "link"
    link.symlink_to(used_home)
    assert start(link) == url


@pytest.fixture
def long_home(home: Path) -> Iterator[Path]:
    """A home whose path is too long for a socket, so that the socket is in another folder."""
    far = home / ("x" * 120)
    copy_cluster(far)
    yield far
    embedded_server.stop(far)
    shutil.rmtree(socket_folder(far), ignore_errors=True)


def test_a_socket_outside_the_home_is_in_a_private_folder(long_home: Path) -> None:
    start(long_home)
    folder = socket_folder(long_home)
    assert (folder.is_relative_to(long_home), permissions(folder)) == (False, 0o700)


@as_root
def test_another_user_cannot_reach_a_socket_outside_the_home(
    long_home: Path, other_user: dict[str, Any]
) -> None:
    url = start(long_home)
    psql = [binaries.binary("psql"), "-Xc", "SELECT 1", url]
    tried = subprocess.run(psql, cwd="/", capture_output=True, text=True, **other_user)
    assert "Permission denied" in tried.stderr


def test_a_socket_folder_that_other_users_may_enter_is_refused(long_home: Path) -> None:
    socket_folder(long_home).mkdir(mode=0o755)
    with pytest.raises(DatabaseUnavailable, match="not private"):
        start(long_home)


@as_root
def test_root_refuses_a_socket_folder_of_another_user(long_home: Path) -> None:
    folder = socket_folder(long_home)
    folder.mkdir(mode=0o700)
    shutil.chown(folder, OTHER_USER)
    with pytest.raises(DatabaseUnavailable, match="not private"):
        start(long_home)
    assert folder.owner() == OTHER_USER


def test_a_socket_folder_that_is_a_symbolic_link_is_refused(
    long_home: Path, tmp_path: Path
) -> None:
    socket_folder(long_home).symlink_to(tmp_path)
    try:
        with pytest.raises(DatabaseUnavailable, match="not private"):
            start(long_home)
    finally:
        socket_folder(long_home).unlink()


def test_the_socket_path_does_not_depend_on_the_temporary_folder(
    long_home: Path, tmp_path: Path
) -> None:
    url = finish(spawn(long_home, environment={"TMPDIR": str(tmp_path)}))
    assert start(long_home) == url


def test_environment_variables_for_another_server_are_ignored(home: Path) -> None:
    theirs = {"PGPORT": "6543", "PGDATA": "/nowhere", "PGDATABASE": "theirs", "PGUSER": "them"}
    url = finish(spawn(home, environment=theirs))
    assert scalar(url, "SELECT current_database()") == "lookalike"


def test_the_error_for_a_home_that_cannot_be_created_names_the_setting(home: Path) -> None:
    home.touch()
    with pytest.raises(DatabaseUnavailable, match=f"{home}/below.*LOOKALIKE_HOME"):
        start(home / "below")


def test_the_error_for_a_home_that_links_to_itself_names_the_setting(home: Path) -> None:
    home.symlink_to(home.name)
    with pytest.raises(DatabaseUnavailable, match=f"{home}.*LOOKALIKE_HOME"):
        start(home)
    home.unlink()


def test_other_users_cannot_read_the_data_folder(home: Path) -> None:
    start(home)
    assert permissions(home / "postgres") == 0o700


def test_other_users_may_only_traverse_the_parent_folders(home: Path) -> None:
    home.mkdir(mode=0o700)
    start(home)
    allowed = 0o701 if os.geteuid() == 0 else 0o700
    assert (permissions(home), permissions(home.parent)) == (allowed, allowed)


@pytest.mark.parametrize("locale", ["tr_TR.UTF-8", "C", "de_DE.ISO-8859-1"])
def test_the_locale_does_not_depend_on_the_environment(home: Path, locale: str) -> None:
    url = finish(spawn(home, environment={"LC_ALL": locale, "LANG": locale}))
    question = (
        "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'lookalike'"
    )
    assert scalar(url, question) == "bC.UTF-8"
